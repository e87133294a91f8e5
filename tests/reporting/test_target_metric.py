"""Reports of studies with another target metric than macro F1: their numbers, tests, words, and reading them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nested_results import CLASSES, FOLDS, guess, make_arm, make_landmarks, make_results
from sklearn.metrics import balanced_accuracy_score

from hirise_imb.metrics.bootstrap import expanded_percentile_interval
from hirise_imb.metrics.target_inference import ArmScores, swap_test_of
from hirise_imb.metrics.targets import find_target
from hirise_imb.pipeline.compare import merge_reports
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.read import read_report, read_summary
from hirise_imb.reporting.verdict import verdict
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

LABELS = make_landmarks()["label"].to_numpy(np.int64)
COSTS = ("hill, flat, 5", "lake, flat, 20")


def study(metric: str, costs: tuple[str, ...] = ()) -> Results:
    shares = {"baseline": 0.3, "plain": 0.5, "smote": 0.5, "focal_loss": 1.0}
    roles = ("baseline", "control", "strategy", "strategy")
    arms = [
        make_arm(
            name,
            roles[place],  # type: ignore[arg-type]
            [guess(LABELS, share, 10 * place + seed) for seed in range(2)],
            scores=(share * 0.9,) * FOLDS,
        )
        for place, (name, share) in enumerate(shares.items())
    ]
    return replace(make_results(*arms), target=find_target(metric, costs, CLASSES.names), costs=costs)


@pytest.mark.parametrize(
    ("metric", "costs"),
    [("g_mean", ()), ("mean_average_precision", ()), ("recall_at_precision:0.5", ()), ("cost", COSTS)],
)
def test_differences_intervals_and_tests_are_of_the_target(metric: str, costs: tuple[str, ...], tmp_path: Path) -> None:
    results = study(metric, costs)
    target = results.target
    sources = np.unique(results.test["source"].to_numpy(str), return_inverse=True)[1]
    fits = {arm.name: np.stack([one.probabilities for one in arm.predictions]) for arm in results.arms}
    one, other = (ArmScores(target, LABELS, sources, fits[name]) for name in ("focal_loss", "plain"))
    summary = read_summary(write_report(results, tmp_path / "report").parent)
    assert summary["metric"] == {"key": target.key, "name": metric, "label": target.label, "costs": list(costs)}
    arms = {arm["name"]: arm for arm in summary["arms"]}
    against = arms["focal_loss"]["vs_control"]
    assert against is not None
    gain = one.score() - other.score()
    assert arms["plain"]["scores"][target.key]["mean"] == pytest.approx(other.score())
    assert against["scores"][target.key] == pytest.approx(gain)
    draws = one.resample() - other.resample()
    interval = expanded_percentile_interval(draws[np.isfinite(draws)], 21)
    assert interval is not None
    assert against["interval"] == pytest.approx({"low": interval.low, "high": interval.high})
    assert against["test"] is not None
    assert against["test"]["p"] == swap_test_of(one, other).p
    answer = verdict(results)
    assert answer.headline == "focal_loss reliably beats the tuned control."
    assert f"focal_loss, {gain:+.3f} {target.label} (95 % CI" in answer.advice


def test_the_page_speaks_of_the_target(tmp_path: Path) -> None:
    folder = write_report(study("balanced_accuracy"), tmp_path / "report").parent
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "balanced accuracy" in text
        # Only the intervals by rule, which are of macro F1, and the column of this score still name it.
        assert "difference in macro F1" not in text.lower()
        assert "swap test of macro F1" not in text
    predicted = study("balanced_accuracy").arms[1].predictions
    expected = np.mean([balanced_accuracy_score(LABELS, fit.labels()) for fit in predicted])
    assert f"{expected:.3f}" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("metric", "costs"), [("recall_at_precision:0.5", ()), ("cost", COSTS)])
def test_a_report_is_read_back_with_its_target(metric: str, costs: tuple[str, ...], tmp_path: Path) -> None:
    results = study(metric, costs)
    again = read_report(write_report(results, tmp_path / "report").parent)
    assert again.target == results.target
    assert again.costs == costs
    assert again.main_score("plain") == results.main_score("plain")
    assert again.families["vs_control"].tests.keys() == results.families["vs_control"].tests.keys()


def test_reports_with_other_targets_are_not_compared(tmp_path: Path) -> None:
    folders = [write_report(study(metric), tmp_path / metric).parent for metric in ("g_mean", "macro_f1")]
    with pytest.raises(UserError, match=r"macro_f1 maximised macro_f1, and those of .*g_mean g_mean: compare reports"):
        merge_reports(folders, "both")
