"""Criteria by which settings could be chosen (tools/criteria.py), and the fits that they are compared on."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from cut_features import cut_key
from sklearn.metrics import f1_score

from hirise_imb.backbones import TOP
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.splits import DataSplits, ImageTable, make_outer_split
from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Recipe
from hirise_imb.testing.toy import make_task
from hirise_imb.training.scoring import HeldOut
from hirise_imb.training.trainer import Trainer
from tools.candidate_fits import (
    CV_SEEDS,
    FINAL_SEEDS,
    JOINT,
    LOSS,
    ONE_SEED,
    POOLED,
    POSTHOC,
    SMOOTHED,
    Candidate,
    Fits,
    adjust,
    best_epoch,
    choose_epochs,
    fit_candidate,
    list_candidates,
)
from tools.criteria import CRITERIA, DEFAULTS, REFERENCE, RESAMPLES, add_error_of_gap, choose_simplest, measure
from tools.criteria_tables import (
    Results,
    choose,
    choose_place,
    correlate,
    format_value,
    read_results,
    score_trained,
)
from tools.simulate_criteria import Simulation


def test_the_simplest_setting_within_one_error_is_chosen() -> None:
    assert choose_simplest([0.50, 0.56, 0.60], [0.05] * 3) == 1
    assert choose_simplest([0.50, 0.56, 0.60], [0.01] * 3) == 2
    assert choose_simplest([0.50, 0.56, 0.60], [0.11, 0.0, 0.0]) == 0


def test_without_an_error_the_first_of_the_best_is_chosen() -> None:
    assert choose_simplest([0.5, 0.6, 0.6], [0.0] * 3) == 1


def test_each_strategy_starts_with_its_defaults() -> None:
    first = {one.strategy: one for one in reversed(list_candidates())}
    assert all(one.place == 0 for one in first.values())
    assert first["logistic"].settings == {"c": 1e-2, "power": 1.0}


def test_each_adjustment_starts_with_one_without_effect() -> None:
    assert POSTHOC["logit_adjustment"][0][0] == {"tau": 0.0}
    assert POSTHOC["class_bias"][0][1] is None


def test_the_stopping_rule_keeps_the_best_epoch_before_patience_ends() -> None:
    values = [0.1, 0.5, 0.2, 0.3, 0.6, 0.1]
    assert best_epoch(values, patience=3) == 4
    assert best_epoch(values, patience=2) == 1
    assert best_epoch([0.5, 0.5], patience=1) == 0


def test_a_moving_mean_passes_over_a_single_high_epoch() -> None:
    values = [0.1, 0.9, 0.1, 0.5, 0.6, 0.5, 0.1]
    assert best_epoch(values, patience=10) == 1
    assert best_epoch(values, patience=10, window=1) == 4


def _epochs() -> tuple[HeldOut, np.ndarray]:
    """Returns eight landmarks of two classes in two folds by two seeds, and their logits after three epochs.

    The second epoch is right for the first half alone, the third for the second half alone.
    """
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    first, second = np.arange(4), np.arange(4, 8)
    right = np.where(np.eye(2)[labels] == 1, 5.0, -5.0)
    epochs = np.stack([np.zeros((8, 2)), np.r_[right[:4], -right[4:]], np.r_[-right[:4], right[4:]]])
    return HeldOut(labels, ((first, second),) * 2, 2), np.stack([epochs, epochs], axis=1).astype(np.float32)


def test_the_epoch_of_a_fold_is_chosen_on_the_other_landmarks() -> None:
    held_out, by_epoch = _epochs()
    for rule in (JOINT, ONE_SEED, LOSS):
        _, out_of_fold = choose_epochs(held_out, by_epoch, patience=10)[rule]
        assert (out_of_fold[0, :4] == by_epoch[2, 0, :4]).all(), rule
        assert (out_of_fold[0, 4:] == by_epoch[1, 0, 4:]).all(), rule


def test_on_the_pooled_folds_all_landmarks_have_the_same_epoch() -> None:
    held_out, by_epoch = _epochs()
    by_epoch[1, :, 4:] *= -0.1  # now the second epoch is right everywhere
    epochs, out_of_fold = choose_epochs(held_out, by_epoch, patience=10)[POOLED]
    assert epochs == 2
    assert (out_of_fold == by_epoch[1]).all()


def test_one_seed_does_not_see_the_others() -> None:
    held_out, by_epoch = _epochs()
    chosen = choose_epochs(held_out, by_epoch, patience=10)
    by_epoch[:, 1] = np.random.default_rng(0).normal(size=by_epoch[:, 1].shape)
    changed = choose_epochs(held_out, by_epoch, patience=10)
    assert chosen[ONE_SEED][0] == changed[ONE_SEED][0]
    assert chosen[ONE_SEED][1].shape == (1, 8, 2)
    assert (chosen[ONE_SEED][1] == changed[ONE_SEED][1]).all()


@pytest.fixture(scope="module")
def outer_fold() -> tuple[DataSplits, Features]:
    task = make_task(variants=2)
    images = task.images
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(images.classes), 16))
    features = centres[images.labels] + rng.normal(size=(len(images.labels), 16))
    splits = make_outer_split(images, task.test, len(CV_SEEDS))
    return splits, Features.of(features.astype(np.float32))


SHORT = Candidate("class_weights", 0, {"learning_rate": 1e-2})


@pytest.fixture(scope="module")
def control_fits(outer_fold: tuple[DataSplits, Features]) -> list[Fits]:
    return list(fit_candidate(*outer_fold, Candidate("plain", 0, {"learning_rate": 1e-2})))


def _trainer(outer_fold: tuple[DataSplits, Features]) -> Trainer:
    splits, features = outer_fold
    return Trainer(cast(Any, None), splits, {cut_key(TOP): features})  # no recipe here trains the backbone


@pytest.mark.parametrize("candidate", [SHORT, Candidate("logistic", 0, {"c": 0.1})])
def test_fits_are_those_of_a_search(outer_fold: tuple[DataSplits, Features], candidate: Candidate) -> None:
    trainer = _trainer(outer_fold)
    fits = next(iter(fit_candidate(*outer_fold, candidate)))
    validation = trainer.cross_validate(candidate.recipe, CV_SEEDS)
    np.testing.assert_allclose(fits.out_of_fold, validation.log_probabilities, atol=1e-4)
    assert fits.epochs == sum(validation.epochs)
    labels = outer_fold[0].images.labels[outer_fold[0].landmarks]
    columns, _ = measure(fits.out_of_fold, labels, np.arange(len(labels)), 8)
    assert columns["f1"] == pytest.approx(validation.score)
    for seed, predicted in zip(FINAL_SEEDS, fits.test, strict=True):
        run = trainer.fit_final(candidate.recipe, seed, validation)
        np.testing.assert_allclose(np.exp(predicted), run.test.probabilities, atol=1e-5)


def test_the_score_on_pooled_folds_is_the_one_that_chose_the_epoch(
    outer_fold: tuple[DataSplits, Features], control_fits: list[Fits]
) -> None:
    [pooled] = [one for one in control_fits if one.epochs_by == POOLED]
    recipe = Candidate("plain", 0, {"learning_rate": 1e-2}).recipe
    labels = outer_fold[0].images.labels[outer_fold[0].landmarks]
    columns, _ = measure(pooled.out_of_fold, labels, np.arange(len(labels)), 8)
    history = _trainer(outer_fold).cross_validate(recipe, CV_SEEDS).history
    assert columns["f1"] == pytest.approx(history["val_macro_f1"].max())


@pytest.mark.parametrize(("name", "place"), [("logit_adjustment", 3), ("class_bias", 2)])
def test_adjustments_are_those_of_a_search(
    outer_fold: tuple[DataSplits, Features], control_fits: list[Fits], name: str, place: int
) -> None:
    [fits] = [one for one in control_fits if (one.strategy, one.place, one.epochs_by) == (name, place, JOINT)]
    adjustment = POSTHOC[name][place][1]
    assert adjustment is not None
    recipe = replace(Candidate("plain", 0, {"learning_rate": 1e-2}).recipe, adjustment=adjustment)
    trainer = _trainer(outer_fold)
    validation = trainer.cross_validate(recipe, CV_SEEDS)
    labels = outer_fold[0].images.labels[outer_fold[0].landmarks]
    columns, _ = measure(fits.out_of_fold, labels, np.arange(len(labels)), 8)
    assert columns["f1"] == pytest.approx(validation.score)
    run = trainer.fit_final(recipe, FINAL_SEEDS[0], validation)
    np.testing.assert_allclose(np.exp(fits.test[0]), run.test.probabilities, atol=1e-5)


def test_nothing_is_learnt_from_the_labels_of_the_outer_fold(
    outer_fold: tuple[DataSplits, Features], control_fits: list[Fits]
) -> None:
    splits, features = outer_fold
    labels = splits.images.labels.copy()
    labels[splits.test] = 7 - labels[splits.test]
    changed = replace(splits, images=replace(splits.images, labels=labels))
    for one, other in zip(
        control_fits, fit_candidate(changed, features, Candidate("plain", 0, {"learning_rate": 1e-2})), strict=True
    ):
        assert one.epochs == other.epochs
        assert (one.out_of_fold == other.out_of_fold).all()
        assert (one.test == other.test).all()


def test_adjustments_without_effect_change_nothing(
    outer_fold: tuple[DataSplits, Features], control_fits: list[Fits]
) -> None:
    control = control_fits[0]
    for fits in adjust(outer_fold[0], control):
        if fits.place == 0:
            np.testing.assert_allclose(fits.test, control.test, atol=1e-6)
            np.testing.assert_allclose(fits.out_of_fold, control.out_of_fold, atol=1e-5)


def _rows() -> pd.DataFrame:
    """Returns the rows of two strategies in one outer fold; the control has an adjustment of each setting."""
    return pd.DataFrame(
        {
            "repeat": 0,
            "fold": 0,
            "strategy": ["plain", "plain", "plain", "b", "b"],
            "place": [0, 1, 2, 0, 1],
            "base": -1,
            "epochs_by": [JOINT, JOINT, JOINT, "", ""],
            "f1": [0.50, 0.58, 0.60, 0.50, 0.40],
            "average_precision": [0.7, 0.6, 0.5, 0.9, 0.8],
            "error": [0.05] * 5,
            "error_of_gap": [0.0, 0.01, 0.0, 0.0, 0.0],
        }
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (REFERENCE, 2),
        ("mean average precision", 0),
        ("mean of macro F1 and average precision", 0),
        (DEFAULTS, 0),
        ("simplest within one standard error", 1),
        ("simplest within one standard error of the difference", 2),
    ],
)
def test_criteria_differ_in_what_they_choose(name: str, place: int) -> None:
    rows = _rows()
    assert rows["place"][CRITERIA[name].choose(rows[rows["strategy"] == "plain"])] == place


def test_settings_come_in_the_order_of_proposals_whatever_that_of_the_rows() -> None:
    rows = _rows()[::-1]
    assert CRITERIA[DEFAULTS].choose(rows[rows["strategy"] == "plain"]) == 0


def test_the_error_of_a_gap_is_that_of_the_difference_to_the_best() -> None:
    rows = _rows()
    resamples = np.random.default_rng(0).normal(size=(5, RESAMPLES))
    errors = add_error_of_gap(rows, resamples)["error_of_gap"]
    assert errors[2] == errors[3] == 0
    assert errors[0] == pytest.approx((resamples[0] - resamples[2]).std())


def test_a_criterion_selects_the_rows_with_its_epochs() -> None:
    rows = pd.DataFrame({"epochs_by": [JOINT, ONE_SEED, SMOOTHED, ""]})
    assert CRITERIA[REFERENCE].select(rows).index.tolist() == [0, 3]
    assert CRITERIA["macro F1, 1 seed"].select(rows).index.tolist() == [1, 3]


@pytest.fixture
def results() -> Results:
    """Two outer folds in one repeat: class 1 has one landmark in the first fold, three in the second.

    The control's second setting finds all of them; the adjustment of the first one spoils what that one finds.
    """
    labels, folds = np.array([0, 0, 1, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    predictions = {
        ("plain", 0, -1): np.array([0, 0, 1, 0, 0, 0, 1, 0]),
        ("plain", 1, -1): labels,
        ("logit_adjustment", 0, 0): np.zeros(8, int),
        ("logit_adjustment", 0, 1): labels,
    }
    rows, outer = [], []
    for fold in (0, 1):
        for (strategy, place, base), predicted in predictions.items():
            f1 = (0.3, 0.2)[place] if fold == 0 else (0.1, 0.5)[place]  # the better setting is chosen in one fold alone
            facts = {"repeat": 0, "fold": fold, "strategy": strategy, "place": place, "base": base}
            rows.append(facts | {"epochs_by": JOINT, "f1": f1, "error": 0.0, "error_of_gap": 0.0})
            outer.append([np.where(folds == fold, predicted, 255)] * 2)
    return Results(pd.DataFrame(rows), np.array(outer, np.uint8), labels, np.arange(8) // 2, 2)


def test_an_outer_score_is_that_of_the_predictions_pooled_over_folds(results: Results) -> None:
    chosen = choose(results, CRITERIA[REFERENCE], "plain")
    assert results.rows["place"].to_numpy()[chosen.chosen].tolist() == [[0, 1]]
    assert chosen.outer[0, 0] == pytest.approx(1.0)
    defaults = choose(results, CRITERIA[DEFAULTS], "plain")
    predicted = [0, 0, 1, 0, 0, 0, 1, 0]
    assert defaults.outer[0, 0] == pytest.approx(f1_score(results.labels, predicted, average="macro"))
    assert choose_place(results, CRITERIA[REFERENCE], "plain", 0).outer[0, 0] == defaults.outer[0, 0]
    assert chosen.inner.tolist() == pytest.approx([(0.3 + 0.5) / 2])


def test_an_adjustment_starts_from_the_setting_that_was_chosen(results: Results) -> None:
    adjusted = choose(results, CRITERIA[REFERENCE], "logit_adjustment")
    assert results.rows["base"].to_numpy()[adjusted.chosen].tolist() == [[0, 1]]


def test_resamples_draw_whole_sources_and_the_same_for_all_choices(results: Results) -> None:
    one = choose_place(results, CRITERIA[REFERENCE], "plain", 1).outer
    assert (one == 1).all()  # every landmark is right, whichever sources are drawn
    other = choose(results, CRITERIA[DEFAULTS], "plain").outer
    assert other[:, 1:].std() > 0
    again = replace(results, rows=results.rows)
    assert (choose(again, CRITERIA[DEFAULTS], "plain").outer == other).all()


def test_rules_for_epochs_are_compared_on_all_trained_settings(results: Results) -> None:
    rows = results.rows
    trained = rows["strategy"] == "plain"
    pooled = rows[trained].assign(epochs_by=POOLED, f1=rows["f1"] + 0.1)
    closed_form = rows[trained].assign(strategy="logistic", epochs_by="", f1=0.9)
    all_rows = pd.concat([rows, pooled, closed_form], ignore_index=True)
    outer = np.concatenate([results.outer, results.outer[trained], results.outer[trained]])
    results = replace(results, rows=all_rows, outer=outer)
    reference = score_trained(results, REFERENCE)
    first = choose_place(results, CRITERIA[REFERENCE], "plain", 0).outer
    assert reference.outer == pytest.approx((first + 1) / 2)  # the second setting finds all landmarks
    assert reference.inner == pytest.approx(np.mean([0.3, 0.2, 0.1, 0.5]))
    other = score_trained(results, "epochs and settings on the same pooled folds")
    assert other.inner - reference.inner == pytest.approx(0.1)
    assert (other.outer == reference.outer).all()


def test_one_repeat_has_no_spread_between_repeats() -> None:
    assert format_value(np.array([[-0.2, -0.1, -0.3]])) == "−0.200 ± 0.100"
    assert format_value(np.array([[-0.0001, -0.1, 0.1], [0.0, 0.1, -0.1]])) == "0.000 ± 0.000 (0.000)"


def test_the_rank_correlation_compares_settings_by_their_pooled_scores(results: Results) -> None:
    assert correlate(results, CRITERIA[REFERENCE], ["plain"]) == pytest.approx(1.0)
    rows = results.rows.assign(f1=-results.rows["f1"])
    assert correlate(replace(results, rows=rows), CRITERIA[REFERENCE], ["plain"]) == pytest.approx(-1.0)


def test_a_repeat_that_is_not_complete_is_left_out(results: Results, tmp_path: Path) -> None:
    rows = pd.concat([results.rows, results.rows[:5].assign(repeat=1)], ignore_index=True)
    rows.assign(f1_seed1="", f1_seed2="").drop(columns="error_of_gap").to_csv(tmp_path / "scores.csv", index=False)
    outer = np.concatenate([results.outer, results.outer[:5]])
    inner = np.where(outer == 255, np.uint8(0), np.uint8(255))  # each fold is predicted by the models of the other
    np.savez(tmp_path / "predictions.npz", inner=inner, outer=outer)
    images = ImageTable((), results.labels, np.ones(8, int), results.sources, np.ones(8, bool), ClassSet(("a", "b")))
    read = read_results(tmp_path, images, np.arange(8))
    assert read.repeats == [0]
    assert len(read.rows) == len(read.outer) == 8
    assert (read.outer[0] == read.outer[0].min()).sum() > 0
    for i, (_, row) in enumerate(read.rows.iterrows()):
        same = (results.rows[["fold", "strategy", "place", "base"]] == row[["fold", "strategy", "place", "base"]]).all(
            axis=1
        )
        assert (read.outer[i] == results.outer[np.flatnonzero(same)[0]]).all()


def test_fresh_sources_take_no_part_in_a_simulated_choice() -> None:
    task = make_task()
    images = task.images
    simulation = Simulation.in_layout(images.labels, images.sources, images.classes)
    for splits in simulation.divisions:
        assert splits.pool.max() < simulation.n_landmarks
        assert not set(images.sources[splits.pool]) & set(splits.images.sources[splits.test])


def test_a_recipe_of_a_candidate_is_that_of_its_strategy() -> None:
    assert Candidate("plain", 0, {}).recipe == replace(
        Recipe(), learning_rate=1e-3, weight_decay=1e-2, monitor="val_macro_f1", max_epochs=100, patience=10
    )
