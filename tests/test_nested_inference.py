"""The proof that tests hold in nested cross-validation (tools/nested_*.py): simulated and real arms, and its tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from hirise_imb.config import NESTED_CV
from hirise_imb.data import HIRISE
from hirise_imb.data.splits import ImageTable
from hirise_imb.features.arrays import Features
from tools import nested_arms
from tools.nested_arms import FIXED, N_SEEDS, Sample, predict_fixed
from tools.nested_layout import N_FOLDS, outer_folds, sample_layout
from tools.nested_simulation import Arm, Case, Law, compare, true_difference
from tools.nested_tables import interpolate_power, list_pairs, summarise_equal, summarise_power, summarise_real


def test_equal_simulated_arms_are_exchangeable() -> None:
    case = Case(Law(1.0, own=0.3))
    differences = [compare(case, [NESTED_CV], number)[NESTED_CV].difference for number in range(20)]
    assert np.std(differences) > 0.01
    assert abs(np.mean(differences)) < 3 * np.std(differences) / np.sqrt(20)


def test_simulated_arms_without_errors_of_their_own_are_the_same() -> None:
    outcome = compare(Case(Law(1.0, own=0.0)), [NESTED_CV], 0)[NESTED_CV]
    assert (outcome.difference, outcome.p) == (0, 1)


def test_a_larger_gain_is_a_larger_true_difference() -> None:
    differences = [true_difference(Case(Law(1.0), (0.0, gain)), 0, copies=2) for gain in (0.0, 0.1, 0.3)]
    assert differences[0] + 0.03 < differences[1] < differences[2] - 0.05


@pytest.mark.parametrize("arm", [Arm(), Arm(None, resamples=True)], ids=["fixed tau", "chosen tau"])
def test_a_simulated_fold_is_predicted_by_heads_that_never_saw_it(arm: Arm) -> None:
    layout, fold_of = sample_layout(), outer_folds(0)
    [features] = Law(1.0).draw(np.random.default_rng(0), layout, (0.0,))
    in_fold = fold_of[layout.cells[0]] == 2
    is_changed = in_fold & (np.arange(len(features)) % 2 == 0)
    changed = np.where(is_changed[:, None], -10 * features, features)
    before, after = (arm.predict_folds(np.random.default_rng(1), layout, x, fold_of) for x in (features, changed))
    unchanged = in_fold & ~is_changed
    assert (before[unchanged] == after[unchanged]).all()
    assert (before[~in_fold] != after[~in_fold]).any()


def test_each_landmark_of_the_sample_is_predicted_once_by_heads_that_never_saw_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = np.repeat(np.arange(30), 4)
    fold_of = sources % N_FOLDS
    monkeypatch.setattr(Sample, "outer_folds", lambda sample, number: fold_of)
    monkeypatch.setattr(nested_arms, "FIXED", replace(FIXED, learning_rate=0.1))
    # No landmark has class 0, so a landmark that is not predicted is a mistake.
    labels = np.where(np.arange(120) % 4 == 3, 2, 1)
    noise = np.random.default_rng(0).normal(size=(120, 8))

    def predict(labels: NDArray[np.int64], features: NDArray[np.float64]) -> NDArray[np.uint8]:
        names = tuple(map(str, range(120)))
        images = ImageTable(names, labels, np.ones(120, np.int64), sources, np.ones(120, bool), HIRISE.classes)
        return predict_fixed(Sample(images, Features.of(features.astype(np.float32))), 0, 0)

    predicted = predict(labels, 30 * np.eye(8)[labels] + noise)
    assert predicted.shape == (N_SEEDS, 120)
    assert (predicted == labels).all()
    # In noise, a head can know a label only from having seen it.
    before, after = (predict(one, noise) for one in (labels, np.where(fold_of == 1, 3 - labels, labels)))
    assert (before[:, fold_of == 1] == after[:, fold_of == 1]).all()
    assert (before[:, fold_of != 1] != after[:, fold_of != 1]).any()


def test_each_arm_is_in_one_pair_of_each_kind() -> None:
    pairs = list_pairs(range(12))
    assert all(sorted(np.ravel(of_kind)) == list(range(12)) for of_kind in pairs.values())
    assert all(one // 2 == other // 2 for one, other in pairs["same"])
    assert all(one // 2 != other // 2 for one, other in pairs["other"])


def test_a_rate_on_the_sample_counts_the_pairs_that_differ() -> None:
    labels, sources = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    mistaken = np.where(sources < 17, 1 - labels, labels)
    right, wrong = (np.tile(values, (N_SEEDS, 1)).astype(np.uint8) for values in (labels, mistaken))
    rows = pd.DataFrame(summarise_real(labels, sources, {0: right, 1: wrong, 2: right, 3: right}))
    same = rows[(rows["folds"] == "same") & (rows["fits"] == N_SEEDS)].iloc[0]
    assert same["pairs"] == 2
    assert same["rejected"] == same["excludes_0"] == 0.5
    assert 0 < same["rejected_low"] < 0.5 < same["rejected_high"] < 1


def test_rates_of_simulated_arms_are_shares_of_the_sets() -> None:
    rows = pd.DataFrame(
        {"case": "own features/0.5", "design": NESTED_CV, "number": range(4), "p": [0.01, 0.05, 0.06, 1.0]}
    )
    rows = rows.assign(number=range(4), low=[0.1, -0.1, -0.1, -0.2], high=[0.2, 0.1, 0.1, 0.1])
    other = rows.assign(case="own features/1.0", p=1.0)
    table = summarise_equal(pd.concat([rows, other])).set_index("between")
    assert table["rejected"].to_dict() == {"0.5": 0.5, "1.0": 0.0, "all": 0.25}
    assert table["excludes_0"]["0.5"] == 0.25
    assert table["sets"]["all"] == 8
    # The interval is that of four means, since sets with one number share their draws.
    assert table["rejected_high"]["all"] - 0.25 == pytest.approx(1.96 * np.std([0.5, 0.5, 0, 0], ddof=1) / 2)


def test_a_true_difference_is_measured_against_the_same_training_sets_without_a_gain() -> None:
    comparisons = pd.DataFrame(
        {"case": ["0.1/0.0", "0.1/0.2", "0.1/0.2"], "design": NESTED_CV, "p": [0.5, 0.05, 0.2], "detectable": 0.1}
    )
    truths = pd.DataFrame(
        {"case": np.repeat(["0.1/0.0", "0.1/0.2"], 2), "number": [0, 1] * 2, "difference": [0.01, -0.03, 0.11, 0.09]}
    )
    table = summarise_power(comparisons, truths)
    assert table["truth"].tolist() == pytest.approx([0, 0.11])
    assert table["detected"].tolist() == [0, 0.5]


def test_the_difference_that_is_detected_with_80_percent_power_is_interpolated() -> None:
    truths, sets = pd.Series([0.0, 0.1, 0.2]), pd.Series([10**6] * 3)
    value, low, high = interpolate_power(truths, pd.Series([0.05, 0.6, 1.0]), sets)
    assert value == pytest.approx(0.15)
    assert value - 0.001 < low < value < high < value + 0.001
    assert interpolate_power(truths, pd.Series([0.05, 0.3, 0.6]), sets) == (np.inf, np.inf, np.inf)


def test_the_layout_is_that_of_the_sample() -> None:
    layout = sample_layout()
    assert (len(layout.counts), layout.is_test.sum(), layout.counts.sum()) == (141, 33, 3392)
    assert set(outer_folds(3)) == set(range(N_FOLDS))
