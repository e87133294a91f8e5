"""The verdict of a report: the answer, the arm to choose, and the reasons for the uncertainty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nested_results import FOLDS, guess, make_arm, make_landmarks, make_results

from hirise_imb.reporting import Arm, Results
from hirise_imb.reporting.records import Role
from hirise_imb.reporting.verdict import verdict

LABELS = make_landmarks()["label"].to_numpy(np.int64)


def arm(name: str, role: Role, right: float, inner: float, seeds: int = 2, first_seed: int = 0) -> Arm:
    """An arm whose fits give this share of the landmarks their true class, and any class to the others."""
    fits = [guess(LABELS, right, first_seed + seed) for seed in range(seeds)]
    return make_arm(name, role, fits, scores=(inner,) * FOLDS)


def study(strategies: dict[str, tuple[float, float]], control: tuple[float, float] = (0.5, 0.5)) -> Results:
    """A baseline, a control and strategies with these shares of right classes and inner scores."""
    return make_results(
        arm("baseline", "baseline", 0.3, 0.3, first_seed=10),
        arm("plain", "control", *control, first_seed=20),
        *(arm(name, "strategy", *pair, first_seed=30 + 10 * n) for n, (name, pair) in enumerate(strategies.items())),
    )


def test_a_strategy_that_is_significantly_better_is_a_clear_answer() -> None:
    answer = verdict(study({"focal_loss": (1.0, 0.9), "smote": (0.5, 0.4)}))
    assert answer.outcome == "clear"
    assert answer.headline == "focal_loss reliably beats the tuned control."
    assert answer.choice == "focal_loss"
    assert answer.advice.startswith("Choose focal_loss, +0.")


def test_of_several_better_strategies_the_one_with_the_best_inner_score_is_chosen() -> None:
    answer = verdict(study({"focal_loss": (1.0, 0.8), "smote": (0.97, 0.9)}))
    assert answer.headline == "2 of 2 strategies reliably beat the tuned control."
    assert answer.choice == "smote"


def test_the_best_inner_score_of_all_does_not_replace_one_that_is_significantly_better() -> None:
    answer = verdict(study({"focal_loss": (1.0, 0.8), "smote": (0.5, 0.9)}))
    assert (answer.outcome, answer.choice) == ("clear", "focal_loss")


def test_without_a_significant_difference_the_answer_is_inconclusive() -> None:
    results = study({"focal_loss": (0.55, 0.6), "smote": (0.4, 0.4)})
    assert results.gain("focal_loss", "macro_f1", "plain") > 0
    answer = verdict(results)
    assert answer.outcome == "inconclusive"
    assert answer.headline.startswith("No strategy reliably beats the tuned control")
    gain = results.gain("focal_loss", "macro_f1", "plain")
    assert answer.advice.startswith(
        f"If you must choose: focal_loss (best by inner score), {gain:+.3f} macro F1 (95 % CI "
    )


@pytest.mark.parametrize(
    ("strategies", "control", "advice"),
    [
        ({"focal_loss": (0.5, 0.4)}, (0.5, 0.5), "the control: no strategy has a higher inner score."),
        ({"focal_loss": (0.5, 0.5)}, (0.5, 0.5), "the control: no strategy has a higher inner score."),
        ({"focal_loss": (0.45, 0.6)}, (0.5, 0.5), "The best strategy by inner score, focal_loss, has -0."),
    ],
    ids=["lower inner score", "equal inner score", "higher inner and lower outer score"],
)
def test_a_strategy_that_gains_nothing_is_not_advised(
    strategies: dict[str, tuple[float, float]], control: tuple[float, float], advice: str
) -> None:
    answer = verdict(study(strategies, control))
    assert answer.choice == "plain"
    assert advice in answer.advice
    assert answer.advice.startswith("If you must choose: plain, the control")


def test_a_selected_strategy_that_is_significantly_worse_is_called_worse() -> None:
    answer = verdict(study({"focal_loss": (0.2, 0.99)}, control=(1.0, 0.9)))
    assert answer.outcome == "worse"
    assert answer.headline == "focal_loss, the best strategy by inner score, is reliably worse than the tuned control."
    assert answer.choice == "plain"


def test_what_tuning_gains_is_part_of_the_answer_only_if_it_is_significant() -> None:
    tuned = verdict(study({"focal_loss": (0.89, 0.9), "smote": (0.6, 0.4)}, control=(0.9, 0.95)))
    assert tuned.headline.endswith(", which beats the published recipe.")
    equal = verdict(study({"focal_loss": (0.35, 0.9)}, control=(0.32, 0.3)))
    assert "tuning" not in equal.headline


def test_without_a_control_strategies_are_compared_with_the_baseline() -> None:
    base = arm("baseline", "baseline", 0.3, 0.3)
    answer = verdict(make_results(base, arm("focal_loss", "strategy", 1.0, 0.9, first_seed=5)))
    assert answer.headline == "focal_loss reliably beats the baseline."
    alone = verdict(make_results(base))
    assert alone.headline == "No strategy was compared with the baseline."
    assert alone.choice == "baseline"


def cards(results: Results) -> dict[str, str]:
    return {card.title: card.text for card in verdict(results).cards}


def test_cards_name_the_classes_of_few_sources_and_those_that_are_never_found() -> None:
    blind = [np.where(LABELS == 0, 1, LABELS), np.ones_like(LABELS)]
    base = make_arm("baseline", "baseline", blind, scores=(0.3,) * FOLDS)
    text = cards(make_results(base))["Classes with too little data"]
    assert "lake (9 from 3)" in text
    assert "Never found by any arm: hill." in text
    assert "flat" not in text


def test_a_card_gives_the_range_that_seeds_alone_cover() -> None:
    results = study({"focal_loss": (0.55, 0.6)})
    spread = results.main_score("plain")
    text = cards(results)["What seeds alone change"]
    assert f"{spread.low:.3f} to {spread.high:.3f}: a range of {spread.high - spread.low:.3f}" in text
    single = make_results(arm("baseline", "baseline", 0.3, 0.3, seeds=1))
    assert "What seeds alone change" not in cards(single)


def test_a_card_shows_a_gain_that_selection_promised_and_unseen_sources_do_not_have() -> None:
    results = study({"focal_loss": (0.5, 0.9)})
    gain = results.gain("focal_loss", "macro_f1", "plain")
    text = cards(results)["Gain by inner score, less in the outer folds"]
    assert "+0.400" in text
    assert f"{gain:+.3f}" in text
    # A gain that is larger on unseen sources needs no warning.
    assert not any(title.startswith("Gain") for title in cards(study({"focal_loss": (1.0, 0.51)})))


def test_a_card_shows_what_the_correction_for_many_comparisons_changes() -> None:
    strategies = {f"s{n}": (0.5, 0.4) for n in range(12)} | {"focal_loss": (0.8, 0.9)}
    results = study(strategies)
    test = results.families["vs_control"].tests["focal_loss"]
    assert test.swap.p <= 0.05 < test.p_holm
    text = cards(results)["What can be detected"]
    assert text.startswith("focal_loss by itself has p = 0.0")
    assert "13 strategies were compared" in text
    assert "minimum detectable difference" in text


@pytest.mark.parametrize("capped", [True, False])
def test_a_card_shows_whether_the_baseline_was_stopped_early(capped: bool) -> None:
    base = arm("baseline", "baseline", 0.3, 0.3)
    flags: Any = ((True, False, False), (True, True, False)) if capped else ((False,) * 3,) * 2
    texts = cards(make_results(replace(base, capped=flags)))
    assert ("The baseline stops early" in texts) == capped
    if capped:
        assert texts["The baseline stops early"].startswith("In 3 of 6 fits")
