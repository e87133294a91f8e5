"""The reference run next to the published table: what shuffled pairings give, and the command that shows it."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES
from handmade import SEEDS, check_files, contents, guesses, make_arm, make_catalogue, make_results
from rich.console import Console
from sklearn import metrics
from worlds import count_work

from hirise_imb.cli.main import main
from hirise_imb.cli.report_tables import MAX_LINES, print_baseline
from hirise_imb.data.manifest import Manifest
from hirise_imb.data.splits import TrainingPool
from hirise_imb.forensics import read_published
from hirise_imb.imbalance.sampling import SplitFileRows
from hirise_imb.reporting import Baseline, write_baseline
from hirise_imb.reporting.baseline import ComparisonEntry, NullDistribution

pytestmark = pytest.mark.usefixtures("few_epochs")

LABELS = range(len(CLASSES))
PER_CLASS = ("precision", "recall", "f1")
WHOLE = ("accuracy", "macro_f1", "weighted_f1", "kappa")


def make_baseline(catalogue: Manifest, *predicted: Sequence[int]) -> Baseline:
    return Baseline(make_results(catalogue, make_arm(catalogue, "baseline", predicted)))


def scores(truth: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray) -> dict[tuple[str, str], float]:
    """By scikit-learn."""
    table = metrics.precision_recall_fscore_support(truth, predicted, labels=LABELS, zero_division=0)[:3]
    columns = dict(zip(PER_CLASS, table, strict=True))
    found = {(name, metric): values[k] for metric, values in columns.items() for k, name in enumerate(CLASSES)}
    weighted = metrics.f1_score(truth, predicted, labels=LABELS, average="weighted", zero_division=0)
    kappa = metrics.cohen_kappa_score(truth, predicted)
    whole = (metrics.accuracy_score(truth, predicted), table[2].mean(), weighted, kappa)
    return found | {("all", metric): float(value) for metric, value in zip(WHOLE, whole, strict=True)}


def entries(baseline: Baseline) -> dict[tuple[str, str], ComparisonEntry]:
    return {(entry.name, entry.metric): entry for entry in baseline.entries}


# --- what shuffled pairings give ---

SMALL = (4, 2, 1, 0, 0, 0, 0, 0)
"""Seven test landmarks, which can be paired in 105 ways."""


@pytest.mark.parametrize(
    "predicted",
    [[[0, 0, 0, 1, 1, 1, 2]], [[0, 0, 0, 0, 0, 1, 1], [1, 1, 3, 2, 0, 0, 1]], [[1] * 7]],
    ids=["one seed", "two seeds", "one class"],
)
def test_shuffled_figures_are_those_of_all_pairings(predicted: list[list[int]], tmp_path: Path) -> None:
    baseline = make_baseline(make_catalogue(tmp_path, SMALL), *predicted)
    truth = np.repeat(range(8), SMALL)
    pairings = sorted(set(itertools.permutations(truth)))
    assert len(pairings) == 105
    every = pd.DataFrame([scores(labels, guessed) for guessed in predicted for labels in pairings])
    for key, entry in entries(baseline).items():
        if key[0] in CLASSES[3:]:  # without a test landmark
            assert (entry.aligned, entry.shuffled, entry.published_in_range) == (None, None, None)
            continue
        law, values = entry.shuffled, every[key]
        assert law is not None
        if key[0] == "all":  # from 9,999 random pairings a seed
            error = values.std() / len(baseline.nulls * 9999) ** 0.5
            assert law.mean == pytest.approx(values.mean(), abs=4 * error + 1e-12)
            for share, end in ((0.025, law.low), (0.975, law.high)):
                assert (values < end - 1e-9).mean() <= share + 0.005
                assert (values <= end + 1e-9).mean() >= share - 0.005
            continue
        ends = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
        assert [law.mean, law.low, law.high] == pytest.approx([values.mean(), *ends], abs=1e-12), key


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def baseline(catalogue: Manifest) -> Baseline:
    """Two seeds that are right nine times of ten."""
    truth = catalogue.canonical_images("test")["label"].tolist()
    return make_baseline(catalogue, *(guesses(truth, 0.9, seed) for seed in SEEDS))


def test_shuffled_figures_agree_with_shuffles(baseline: Baseline) -> None:
    """On as many landmarks as the official test split has."""
    rng = np.random.default_rng(5)
    truth = baseline.results.test["label"].to_numpy()
    guessed = [predictions.labels() for predictions in baseline.arm.predictions]
    drawn = pd.DataFrame([scores(rng.permutation(truth), labels) for labels in guessed for _ in range(200)])
    aligned = pd.DataFrame([scores(truth, labels) for labels in guessed]).mean()
    for key, entry in entries(baseline).items():
        if key[0] == "spider":  # has no test landmark
            continue
        law, values = entry.shuffled, drawn[key]
        assert law is not None
        assert entry.aligned == pytest.approx(aligned[key], abs=1e-12)
        assert law.mean == pytest.approx(values.mean(), abs=4 * values.std() / len(values) ** 0.5 + 1e-12)
        assert values.between(law.low - 1e-12, law.high + 1e-12).mean() >= 0.92
        # A range that is too wide would hold more; where the values are few, they hold much more anyway.
        if values.nunique() > 50:
            assert values.between(law.low, law.high).mean() <= 0.985


# --- the published figures ---


def test_the_published_table_is_read_as_it_was_printed() -> None:
    published = read_published()
    assert published.classes == CLASSES
    rows = {
        name: [str(published.figures[metric][k]) for metric in PER_CLASS] for k, name in enumerate(published.classes)
    }
    assert rows["other"] == ["0.823", "0.858", "0.840"]
    assert rows["slope streak"] == ["0.057", "0.041", "0.048"]
    assert rows["bright dune"] == rows["impact ejecta"] == rows["spider"] == ["0.000"] * 3
    assert published.total == 1793


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (0.1, 0.2, True),
        (0.1, 0.1, False),
        (0.1234, 0.1234, True),
        (0.1235, 0.2, True),  # prints as 0.123 or 0.124
        (0.12351, 0.2, False),
        (0.0, 0.1225, True),
        (0.0, 0.12249, False),
        (0.05, 0.122, False),
        (0.124, 0.2, False),
    ],
)
def test_a_published_figure_is_compared_at_its_three_decimals(low: float, high: float, inside: bool) -> None:
    assert ComparisonEntry("crater", "f1", 0.123, 0.9, NullDistribution(0.1, low, high)).published_in_range is inside


def test_nothing_is_compared_with_nothing() -> None:
    assert ComparisonEntry("all", "accuracy", None, 0.9, NullDistribution(0.1, 0.0, 1.0)).published_in_range is None
    assert ComparisonEntry("spider", "f1", 0.0, None, None).published_in_range is None


def test_the_headline_counts_what_lies_in_the_range(baseline: Baseline) -> None:
    table = baseline.table()
    compared = table[table["published_in_range"].notna()]
    assert len(compared) == 3 * 7  # spider has no test landmark
    inside = compared[compared["published_in_range"].astype(bool)]
    idle = inside["aligned"].between(inside["shuffled_low"], inside["shuffled_high"])
    # Impact ejecta, which is never predicted, scores 0 in any pairing.
    assert set(inside.loc[idle, "class"]) == {"impact ejecta"}
    macro = table[table["metric"] == "macro_f1"].iloc[0]
    # The published table's own counts are checked in the tests of the forensics.
    assert baseline.headline() == (
        f"With predictions and labels aligned, the model reaches macro F1 {macro['aligned']:.3f}; with shuffled labels "
        f"it reaches {macro['shuffled']:.3f} ({macro['shuffled_low']:.3f} to {macro['shuffled_high']:.3f}). Judged by "
        "its own figures and the official supports, the published table is no better than a shuffled pairing (kappa "
        f"-0.019 to -0.016). {len(inside)} of 21 published figures lie in the 95 % range of this model's predictions "
        "paired with shuffled labels. For 3 of them, the aligned score lies in this range too, so they decide nothing."
    )
    assert (
        "official test split (1,793 landmarks, 82.7 % other). This test split has 1,751 landmarks, 84.6 % other."
        in (baseline.reading())
    )


# --- the report ---


@pytest.fixture(scope="module")
def folder(baseline: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "by-hand" / "baseline"
    assert write_baseline(baseline, folder) == folder / "report.html"
    return folder


FILES = {
    "published.csv",
    "confusion/baseline.csv",
    "figures/published.png",
    "figures/class_distribution.png",
    "figures/curves-baseline.csv",
    "predictions/baseline.parquet",
}
"""Some of the files; figures come and go."""


def test_every_promised_file_is_written_and_listed(folder: Path, baseline: Baseline, tmp_path: Path) -> None:
    assert set(check_files(folder)) > FILES
    write_baseline(baseline, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_the_table_is_the_same_everywhere(folder: Path, baseline: Baseline) -> None:
    table = pd.read_csv(folder / "published.csv")
    columns = ["class", "metric", "published", "aligned", "shuffled", "shuffled_low", "shuffled_high"]
    assert table.columns.tolist() == [*columns, "published_in_range"]
    rows = [(name, metric) for name in CLASSES for metric in PER_CLASS] + [("all", metric) for metric in WHOLE]
    assert list(zip(table["class"], table["metric"], strict=True)) == rows
    assert table.set_index(["class", "metric"]).loc[("spider", "f1"), "aligned":].isna().all()
    text = (folder / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["comparison"] == table.astype(object).where(table.notna(), None).to_dict("records")
    page, lines = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for sentence in (summary["headline"], summary["reading"], summary["caution"], summary["pairing"]):
        assert page.replace("&lt;", "<").replace("&#39;", "'").count(sentence) == 1
        assert lines.count(sentence) == 1
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    crater = table.iloc[5]
    cells = [f"{crater[name]:.3f}" for name in ("published", "aligned", "shuffled", "shuffled_low", "shuffled_high")]
    verdict = "yes" if crater["published_in_range"] in (True, "True") else "no"
    assert f"| crater | F1 | {' | '.join(cells[:3])} | {cells[3]} to {cells[4]} | {verdict} |" in lines


def test_the_terminal_shows_the_f1_of_every_class(baseline: Baseline) -> None:
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=False)
    print_baseline(baseline, Path("reports/demo/baseline/report.html"), console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= MAX_LINES
    assert not any("…" in line for line in lines)
    figure = r"(0\.\d{3}|–)"
    for entry in baseline.entries:
        if entry.metric == "f1" and entry.name != "all":
            cells = rf" +{figure} +{figure} +({figure} to {figure}|–) +(yes|no|–)"
            [line] = [line for line in lines if re.fullmatch(rf"{entry.name}{cells}", line.rstrip())]
            if entry.aligned is not None:
                assert f" {entry.aligned:.3f} " in line
    assert baseline.verdict() in " ".join(" ".join(lines).split())
    assert lines[-1] == "Report: reports/demo/baseline/report.html"


# --- the command ---


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts decoded images, cuts, trials, and fits for the report by the kind of rows they go through."""
    return count_work(monkeypatch, lambda recipe: type(recipe.sampling).__name__)


def lasting_files(report: Path) -> dict[str, bytes]:
    """What must not differ between equal runs: everything but times, the page that shows them, and its digests."""
    files = contents(report)
    for name in ("environment.json", "report.html", "summary.json"):
        del files[name]
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    del summary["files"]
    return files | {"summary.json": json.dumps(summary).encode()}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_it_shares_its_fits_with_the_study(
    small_data: Path,
    toy: str,
    tmp_path: Path,
    cache: Path,
    work: Counter[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data", str(small_data), "--backbone", toy, "--weights", "random", "--refits", "2"]
    options += ["--name", "t", "--out", str(tmp_path)]
    report = tmp_path / "reports" / "t" / "baseline"
    assert main(["baseline", *options]) == 0
    assert capsys.readouterr().out.endswith(f"Report: {report / 'report.html'}\n")
    images = work.pop("decoded")
    assert images > 0
    assert work == {"EveryImage": 2, "validation": 1}
    assert len(list(cache.glob("features/*"))) == 1
    assert set(check_files(report)) > FILES
    assert 'href="t/baseline/report.html"' in (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert not (tmp_path / "studies" / "studies.db").exists()

    first = lasting_files(report)
    work.clear()
    assert main(["baseline", *options]) == 0
    assert not work
    assert lasting_files(report) == first

    given = ["--evaluation", "given-split"]
    assert main(["run", *options, *given, "--strategies", "class_weights", "--trials", "1"]) == 0
    # Of the baseline to its end, the control and the strategy, which sample as the baseline does.
    assert work == {"trial": 2, "EveryImage": 6, "validation": 3}
    name = "predictions/baseline.parquet"
    assert (report.parent / name).read_bytes() == first[name]
    assert lasting_files(report) == first

    shutil.rmtree(report)
    work.clear()
    assert main(["baseline", *options]) == 0  # now with fits that the study may have made
    assert not work
    assert lasting_files(report) == first


@pytest.mark.usefixtures("undrawn")
def test_rows_of_the_split_file_have_a_report_of_their_own(
    small_data: Path, toy: str, tmp_path: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    rows = SplitFileRows.rows

    def counting(self: SplitFileRows, pool: TrainingPool, seed: int, epoch: int, progress: float) -> np.ndarray:
        chosen = rows(self, pool, seed, epoch, progress)
        seen.append((len(chosen), int(pool.copies.sum())))
        assert len(chosen) > len(pool.labels)
        return chosen

    monkeypatch.setattr(SplitFileRows, "rows", counting)
    options = ["--data", str(small_data), "--backbone", toy, "--weights", "random", "--refits", "1"]
    options += ["--name", "t", "--out", str(tmp_path)]
    assert main(["baseline", *options]) == 0
    assert main(["baseline", *options, "--rows", "split-file"]) == 0
    assert (work["EveryImage"], work["SplitFileRows"]) == (1, 1)
    assert seen
    assert all(drawn == listed for drawn, listed in seen)
    for name, kind in (("baseline", "EveryImage"), ("baseline-split-file", "SplitFileRows")):
        report = tmp_path / "reports" / "t" / name
        assert set(check_files(report)) > FILES
        summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
        assert summary["arms"][0]["selections"][0]["recipe"]["sampling"] == {"kind": kind}
    assert "repeated rows of the split file" in summary["setting"]


def test_what_it_cannot_do_is_refused(
    small_data: Path, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(small_data), "--backbone", toy, "--weights", "random", "--out", str(tmp_path / "out")]
    assert main(["baseline", *options, "--rows", "split_file"]) == 2
    assert capsys.readouterr().err == (
        "error: There is no kind of rows 'split_file': did you mean split-file? Known: unique, split-file.\n"
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["baseline", *options, "--strategies", "focal_loss"])


def test_a_single_test_landmark_cannot_be_shuffled(
    own_data: Path, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in own_data.glob("*train_val_test.txt"):
        lines = path.read_text().splitlines(keepends=True)
        tests = [line for line in lines if line.endswith(" test\n")]
        path.write_text("".join(line for line in lines if line not in tests[1:]))
    options = ["--data", str(own_data), "--backbone", toy, "--weights", "random", "--out", str(tmp_path)]
    assert main(["baseline", *options]) == 2
    message = f"{own_data} has only one test landmark, but a shuffled pairing needs two: use other data."
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("reports/**/*"))
