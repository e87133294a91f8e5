"""The line of a report that says whether predictions and labels belong together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from handmade import make_arm, make_catalogue, make_results, shuffle_hits

from hirise_imb.data.manifest import Manifest
from hirise_imb.reporting import write_report


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"))


def line(catalogue: Manifest, **arms: list[list[int]]) -> str:
    return make_results(catalogue, *(make_arm(catalogue, *entry) for entry in arms.items())).pairing()


def test_right_predictions_belong_to_their_labels(catalogue: Manifest) -> None:
    truth = catalogue.canonical_images("test")["label"].to_numpy()
    mean, law = (truth[:, None] == truth).mean() * len(truth), shuffle_hits(truth, truth)
    found = re.fullmatch(
        r"Label-alignment check passed: every fit has 1751 or more hits among 1751 landmarks of the "
        r"test split, where a "
        rf"shuffled pairing gives {mean:.0f} \(standard deviation (\S+); p <= 0\.0005\)\.",
        line(catalogue, baseline=[truth.tolist()]),
    )
    assert found is not None
    assert float(found[1]) == pytest.approx(law.std(), rel=0.1)


def test_fits_no_better_than_shuffled_are_named(catalogue: Manifest) -> None:
    truth = catalogue.canonical_images("test")["label"].to_numpy()
    shuffled = np.random.default_rng(1).permutation(truth)
    hits, law = np.count_nonzero(truth == shuffled), shuffle_hits(truth, shuffled)
    found = line(catalogue, baseline=[truth.tolist()] * 2, bad=[truth.tolist(), shuffled.tolist()])
    mean = (truth[:, None] == truth).mean() * len(truth)
    assert found.startswith("Not clearly better than the same predictions paired with shuffled labels (p >= 0.001): ")
    named = re.search(rf"bad \(1 of 2 seeds, {hits} hits, shuffled {mean:.0f} with standard deviation (\S+)\)\.", found)
    assert named is not None
    assert float(named[1]) == pytest.approx(law.std(), rel=0.1)
    assert "too few to decide, or its predictions and labels do not belong together." in found
    assert "Every other fit has 1751 or more hits among 1751 landmarks of the test split" in found
    assert "Label-alignment check passed" not in found
    # Worse than shuffled is not better than shuffled.
    wrong = np.where(truth == 0, 1, 0).tolist()
    assert "baseline (0 hits, shuffled" in line(catalogue, baseline=[wrong])
    assert "Every other fit" not in line(catalogue, baseline=[wrong])


def test_predictions_of_one_class_stand_for_nothing(catalogue: Manifest) -> None:
    found = line(catalogue, baseline=[[0] * 1751])
    assert "baseline (1482 hits, which no pairing could change, as in a table with only one class)" in found
    assert "check passed" not in found


def test_a_small_test_split_cannot_tell(tmp_path: Path) -> None:
    few = make_catalogue(tmp_path / "few", (2, 1, 0, 0, 0, 0, 0, 0))
    assert "baseline (3 hits, shuffled 1.7 with standard deviation 0.9)" in line(few, baseline=[[0, 0, 1]])
    one = make_catalogue(tmp_path / "one", (1, 0, 0, 0, 0, 0, 0, 0))
    assert line(one, baseline=[[0]]) == "The test split has 1 landmark, too few to compare with a shuffled pairing."
    arms = (make_arm(one, "baseline", [[0]]), make_arm(one, "other", [[1]]))
    page = write_report(make_results(one, *arms), tmp_path / "report")
    assert "too few to compare with a shuffled pairing" in page.read_text(encoding="utf-8")
