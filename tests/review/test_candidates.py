"""Candidates of the review queue: their order, the limits on sources, near-duplicates and images of several classes."""

from __future__ import annotations

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.data.dataset import ClassSet
from hirise_imb.review import Candidate, choose_candidates
from hirise_imb.review.candidates import NEAR_DUPLICATE, expected_value, shortlist

CLASSES = ClassSet(("other", "crater", "spider"), majority="other")
OTHER, CRATER, SPIDER = range(3)


def choose(
    values: list[list[float]],
    *,
    sources: list[int] | None = None,
    landmarks: list[int] | None = None,
    features: np.ndarray | None = None,
    per_class: int = 10,
    per_source: int = 10,
) -> list[Candidate]:
    """Candidates of images that differ in everything unless given."""
    n = len(values)
    return choose_candidates(
        np.array(values, float),
        np.arange(n) if sources is None else np.array(sources),
        np.arange(n) if landmarks is None else np.array(landmarks),
        np.eye(n) if features is None else features,
        CLASSES,
        per_class,
        per_source,
    )


def rows_of(candidates: list[Candidate], label: int) -> list[int]:
    return [one.row for one in candidates if one.label == label]


def test_the_expected_value_is_the_probability_up_to_twice_as_much_where_the_model_is_uncertain() -> None:
    calibrated = np.array([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    values = expected_value(calibrated)
    assert values[0] == pytest.approx([0, 1, 0])
    assert values[1] == pytest.approx([2 / 3] * 3)
    assert values[2, CRATER] == pytest.approx(0.5 * (1 + np.log(2) / np.log(3)))


def test_candidates_are_best_first_and_the_first_of_equals_comes_first() -> None:
    found = choose([[0, 0.2, 0], [0, 0.5, 0], [0, 0.2, 0], [0, 0.9, 0]], per_class=3)
    assert rows_of(found, CRATER) == [3, 1, 0]
    assert [one.value for one in found if one.label == CRATER] == [0.9, 0.5, 0.2]


def test_no_image_is_proposed_for_the_majority_class() -> None:
    assert rows_of(choose([[0.9, 0.05, 0.05]] * 4), OTHER) == []


def test_a_source_gives_a_class_no_more_candidates_than_allowed() -> None:
    values = [[0, 0.9, 0.1], [0, 0.8, 0.1], [0, 0.7, 0.1], [0, 0.1, 0.1]]
    found = choose(values, sources=[7, 7, 7, 8], per_class=2, per_source=1)
    assert rows_of(found, CRATER) == [0, 3]


def rotated(distances: dict[int, float], n: int = 10) -> np.ndarray:
    """Orthogonal features, but for some images at these cosine distances from the first one."""
    features = np.eye(n)
    for row, distance in distances.items():
        features[row] *= np.sin(np.arccos(1 - distance))
        features[row, 0] = 1 - distance
    return features


def test_of_near_duplicates_the_best_one_is_shown_and_another_image_takes_the_place() -> None:
    """The median distance is 1."""
    features = rotated({1: NEAR_DUPLICATE - 1e-3, 2: NEAR_DUPLICATE + 1e-3})
    values = [[0.0, 0.9 - 0.1 * min(row, 3), 0.0] for row in range(10)]
    assert rows_of(choose(values, features=features, per_class=2), CRATER) == [0, 2]


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_how_near_is_near_depends_on_how_far_apart_images_are(scale: float) -> None:
    """Features of some backbones all point in nearly one direction."""
    features = np.hstack([np.eye(10), np.full((10, 1), 1 / scale)])
    features[1] = features[0]
    values = [[0.0, 0.9 - 0.1 * min(row, 3), 0.0] for row in range(10)]
    assert rows_of(choose(values, features=features, per_class=3), CRATER) == [0, 2, 3]


def test_near_duplicates_are_left_out_whatever_class_they_are_proposed_for() -> None:
    assert len(choose([[0, 0.9, 0], [0, 0, 0.8]], features=np.ones((2, 4)))) == 1


def test_variants_of_a_landmark_are_shown_once() -> None:
    found = choose([[0, 0.9, 0], [0, 0.8, 0], [0, 0.7, 0]], landmarks=[5, 5, 6])
    assert [one.row for one in found] == [0, 2]


def test_images_without_any_activation_are_not_near_duplicates() -> None:
    found = choose([[0, 0.9, 0], [0, 0.8, 0]], features=np.zeros((2, 4)))
    assert sorted(one.row for one in found) == [0, 1]


def test_an_image_of_two_classes_is_shown_for_the_one_it_is_best_for() -> None:
    found = choose([[0, 0.9, 0], [0, 0.4, 0.3], [0, 0, 0.2]])
    assert rows_of(found, CRATER)[:2] == [0, 1]
    assert rows_of(found, SPIDER)[:1] == [2]


def test_an_image_is_shown_for_its_second_class_if_the_first_one_is_full() -> None:
    """It is merely the third crater, but the only spider: a page of craters alone would lose it."""
    found = choose([[0, 0.9, 0], [0, 0.8, 0], [0, 0.4, 0.3]], per_class=2)
    assert rows_of(found, CRATER) == [0, 1]
    assert rows_of(found, SPIDER) == [2]


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 4))
@quick
def test_the_shortlist_gives_the_same_candidates_as_all_images(seed: int, per_class: int, per_source: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    p = rng.dirichlet([2, 0.5, 0.3], n)
    values, sources = expected_value(p), rng.integers(0, 12, n)
    whole = choose(values.tolist(), sources=sources.tolist(), per_class=per_class, per_source=per_source)
    rows = shortlist(values, sources, CLASSES, per_class, per_source)
    short = choose(values[rows].tolist(), sources=sources[rows].tolist(), per_class=per_class, per_source=per_source)
    # Without near-duplicates, only images of the other rare class can be missing, of which there are few enough.
    as_pairs = [(int(rows[one.row]), one.label) for one in short]
    assert as_pairs == [(one.row, one.label) for one in whole]
    for label in CLASSES.rare_ids:
        chosen = [row for row, of in as_pairs if of == label]
        assert len(chosen) <= per_class
        assert max(np.bincount(sources[chosen]), default=0) <= per_source
    assert len({row for row, _ in as_pairs}) == len(as_pairs)
