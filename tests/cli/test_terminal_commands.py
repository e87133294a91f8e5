"""Definitions that are written, dry runs, quiet runs, pages that are opened, and completion in shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import webbrowser
from dataclasses import fields, replace
from pathlib import Path

import pytest
from handmade import make_arm, make_catalogue, make_results
from terminal import print_end

from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition, load_definition
from hirise_imb.reporting import Baseline, Results, write_report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    catalogue = make_catalogue(tmp_path_factory.mktemp("data"))
    truth = catalogue.canonical_images("test")["label"].tolist()
    wrong = [(label + 1) % 8 for label in truth]
    half = [*truth[: len(truth) // 2], *wrong[len(truth) // 2 :]]
    scores = {"baseline": (wrong, 0.4), "plain": (half, 0.5), "smote": (truth, 0.6), "focal_loss": (half, 0.55)}
    return make_results(catalogue, *(make_arm(catalogue, name, [fit, fit], val) for name, (fit, val) in scores.items()))


@pytest.fixture
def report(results: Results, blank_figures: None, tmp_path: Path) -> Path:
    """The folder of a report, with a name that looks like markup."""
    return write_report(results, tmp_path / "reports" / "[red]demo").parent


# --- the end of a command ---


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_end_shows_every_rare_class_of_both_references_and_the_choice(width: int, results: Results) -> None:
    lines = print_end(results, width)
    headings = [word for line in lines for word in line.split()]
    assert all(word in headings for k in results.classes.rare_ids for word in results.classes[k].split())
    assert not any("…" in line for line in lines)
    for name in ("baseline", "plain", "smote"):
        [row] = [line.split() for line in lines if re.match(rf"{name} +\d\.\d{{3}} ", line)]
        f1 = results.per_class(name, "f1")
        expected = [f"{f1[k].mean:.3f}" if results.support[k] else "–" for k in results.classes.rare_ids]
        assert row[2:] == expected
        assert row[1] == f"{results.main_score(name).mean:.3f}"
    assert not any(re.match(r"focal_loss +\d", line) for line in lines)


def test_where_it_is_narrow_classes_are_rows(results: Results) -> None:
    lines = print_end(results, 56)
    rows = [line for line in lines if line.startswith(("crater ", "dark dune ", "impact ejecta "))]
    assert rows
    assert not any("…" in line for line in lines)


# --- reports ---


def test_a_report_says_how_long_it_was_written(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(report)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"Report: {report / 'report.html'}\n"
    begin, end = printed.err.splitlines()
    assert begin[9:] == "Writing the report ..."
    assert end[9:].startswith("Writing the report: done in ")
    assert all(line[2] == line[5] == ":" for line in (begin, end))


def test_a_quiet_report_prints_its_path_alone(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(report), "--quiet"]) == 0
    assert capsys.readouterr() == (f"Report: {report / 'report.html'}\n", "")
    out = report.parents[1] / "[bold]"
    other = shutil.copytree(report, out / "other")
    assert main(["compare", str(report), str(other), "--name", "again", "--out", str(out), "--quiet"]) == 0
    assert capsys.readouterr() == (f"Report: {out / 'reports' / 'again' / 'report.html'}\n", "")


@pytest.mark.parametrize("is_possible", [True, False])
def test_the_page_is_opened(
    is_possible: bool, report: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_address(address: str) -> bool:
        opened.append(address)
        return is_possible

    monkeypatch.setattr(webbrowser, "open", open_address)
    assert main(["report", str(report), "--open", "--quiet"]) == (0 if is_possible else 2)
    assert opened == [(report / "report.html").as_uri()]
    error = (
        f"error: The report is written, but no browser could be started here: open {report / 'report.html'} yourself.\n"
    )
    assert capsys.readouterr().err == ("" if is_possible else error)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that are opened in a browser."""
    addresses: list[str] = []

    def open_address(address: str) -> bool:
        addresses.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_address)
    return addresses


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path | None, str]]:
    """Addresses of MLflow that are checked, without a report, and reports that are exported to them."""
    calls: list[tuple[Path | None, str]] = []
    place = "hirise_imb.pipeline.mlflow_export"
    monkeypatch.setattr(f"{place}.check_mlflow", lambda uri: calls.append((None, uri)))
    monkeypatch.setattr(f"{place}.export_report", lambda folder, uri: calls.append((folder, uri)))
    return calls


STORE = "sqlite:///runs.db"


def test_a_quiet_run_prints_its_path_alone_and_then_exports_and_opens_the_report(
    results: Results,
    tmp_path: Path,
    opened: list[str],
    exported: list[tuple[Path | None, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "reports" / "demo" / "report.html"

    def run_study(*_: object) -> tuple[Results, Path]:
        assert exported == [(None, STORE)]  # an address that is wrong is told before hours of work
        return results, page

    monkeypatch.setattr("hirise_imb.pipeline.runner.run_study", run_study)
    assert main(["run", "--quiet", "--mlflow", STORE, "--open", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Report: {page}\n"
    assert exported == [(None, STORE), (page.parent, STORE)]
    assert opened == [page.as_uri()]


def test_a_quiet_baseline_prints_its_path_alone_and_opens_the_report(
    results: Results,
    tmp_path: Path,
    opened: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "reports" / "demo" / "baseline" / "report.html"
    baseline = Baseline(replace(results, arms=results.arms[:1]))
    monkeypatch.setattr("hirise_imb.pipeline.runner.run_baseline", lambda *_: (baseline, page))
    assert main(["baseline", "--quiet", "--open", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Report: {page}\n"
    assert opened == [page.as_uri()]


def test_a_comparison_is_opened(
    results: Results, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "reports" / "both" / "report.html"
    monkeypatch.setattr("hirise_imb.pipeline.rebuild.compare_reports", lambda *_: (results, page))
    assert main(["compare", "one", "other", "--open", "--quiet"]) == 0
    assert opened == [page.as_uri()]


def test_a_report_is_exported_after_it_is_rebuilt(
    tmp_path: Path, exported: list[tuple[Path | None, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rebuild_report(folder: Path, **_: object) -> Path:
        assert exported == [(None, STORE)]
        return folder / "report.html"

    monkeypatch.setattr("hirise_imb.pipeline.rebuild.rebuild_report", rebuild_report)
    assert main(["report", str(tmp_path), "--mlflow", STORE]) == 0
    assert exported == [(None, STORE), (tmp_path, STORE)]


# --- dry runs ---


def test_a_dry_run_prints_time_and_disk_and_writes_nothing(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["run", "--data", str(small_data), "--trials", "2", "--dry-run", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "in all" in printed
    assert "Sources by class" not in printed
    assert not out.exists()


def test_a_dry_run_refuses_what_a_run_refuses(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reports" / "mine"
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text("trials = 50\n", encoding="utf-8")
    words = ["run", "--name", "mine", "--data", str(small_data), "--dry-run", "--out", str(tmp_path)]
    assert main(words) == 2
    assert "has a report with 50 trials" in capsys.readouterr().err
    assert main([*words, "--replace"]) == 0


# --- definitions ---


def test_a_definition_explains_every_key_and_fits_the_time(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for hours in (0.0001, 0.03, 1000):
        path = tmp_path / f"of-{hours}.toml"
        assert main(["init", str(path), "--data", str(small_data), "--hours", str(hours)]) == 0
        printed = capsys.readouterr().out
        assert printed.endswith(f"Definition: {path}\n")
        assert ("takes longer than" in printed) == (hours == 0.0001)
        text = path.read_text(encoding="utf-8")
        keys = tomllib.loads(text)
        assert list(keys) == [key.name for key in fields(StudyDefinition) if key.name != "overrides"]
        lines = text.splitlines()
        for key in keys:
            [number] = [n for n, line in enumerate(lines) if line.startswith(f"{key} = ")]
            assert lines[number - 1].startswith("# ")
        definition = load_definition(path, {})
        assert (definition.data, definition.name) == (str(small_data), path.stem)
        sizes.append(definition.trials * len(definition.strategies))
    assert sizes == sorted(set(sizes))


def test_a_definition_is_never_overwritten(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("trials = 7\n", encoding="utf-8")
    assert main(["init", str(path), "--data", str(small_data), "--hours", "1"]) == 2
    assert capsys.readouterr().err == f"error: {path} exists: name another file, or remove it.\n"
    assert path.read_text(encoding="utf-8") == "trials = 7\n"


def test_questions_are_asked_of_people_alone(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--hours", "1"]) == 2
    assert "error: Standard input is not a terminal" in capsys.readouterr().err
    answers = iter([f" {small_data} ", "many"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert main(["init"]) == 2
    assert "'many' is not a number of hours" in capsys.readouterr().err
    answers = iter([str(small_data), ""])
    assert main(["init"]) == 0
    assert load_definition(tmp_path / f"{small_data.name}.toml", {}).data == str(small_data)


# --- completion ---


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("hirise-imb", "compare", "trials", "quiet"))
    if path := shutil.which(shell):
        subprocess.run([path, "-n"], input=script, text=True, check=True)


def test_bash_completes_commands_options_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    (tmp_path / "mine.toml").touch()

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        command = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p hirise-imb | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
        return done.stdout.split()

    assert complete("hirise-imb", "comp") == ["compare", "completion"]
    assert complete("hirise-imb", "run", "--dry") == ["--dry-run"]
    assert complete("hirise-imb", "run", "mi") == ["mine.toml"]
