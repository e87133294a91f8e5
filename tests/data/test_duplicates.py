"""Landmarks with identical images, in small data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import SOURCES, image, valid_lines, write_data
from layouts import ROCKS, rocks, write_csv

from hirise_imb.cli import main
from hirise_imb.data.duplicates import find_duplicates
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, read_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A landmark of each class in each split; the first of training has two variants, and that of test one."""
    variants = [f"{image(SOURCES['train'], 0, variant)} 0 train" for variant in ("fh", "fv")]
    variants.append(f"{image(SOURCES['test'], 0, 'fh')} 0 test")
    return read_manifest(write_data(tmp_path / "data", [*valid_lines(), *variants]), HIRISE)


def digests(manifest: Manifest, *same: tuple[str, str]) -> list[str]:
    """A digest of each image, the same for the images of each pair."""
    equal = {other: one for one, other in same}
    return [equal.get(name, name) for name in manifest.table["image"]]


def test_different_images_and_variants_of_one_landmark_do_not_count(manifest: Manifest) -> None:
    original = image(SOURCES["train"], 0)
    variants = [(original, image(SOURCES["train"], 0, variant)) for variant in ("fh", "fv")]
    for same in ([], variants):
        found = find_duplicates(manifest, digests(manifest, *same))
        assert len(found) == 0
        assert found.describe() == ""


def test_groups_across_splits_come_first_and_are_counted(manifest: Manifest) -> None:
    of_train = image(SOURCES["train"], 1), image(SOURCES["train"], 2)
    across = image(SOURCES["train"], 7), image(SOURCES["test"], 7)
    found = find_duplicates(manifest, digests(manifest, of_train, across))
    assert [tuple(group["image"]) for group in found.groups] == [across, of_train]
    assert found.describe() == (
        "2 groups of landmarks have identical images (1 across splits, 1 across sources, 1 across classes). A landmark "
        "that is tested and trained on, or trained on with two classes, makes scores wrong: keep one of each group."
        f"\n  {across[0]} (train, spider) = {across[1]} (test, spider)"
        f"\n  {of_train[0]} (train, crater) = {of_train[1]} (train, dark dune)"
    )


def test_landmarks_that_share_several_variants_are_one_group(manifest: Manifest) -> None:
    pairs = [(image(SOURCES["train"], 0, variant), image(SOURCES["test"], 0, variant)) for variant in ("", "fh")]
    assert len(find_duplicates(manifest, digests(manifest, *pairs))) == 1


def test_data_check_compares_pixels_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = rocks()
    first, last = pictures[0], pictures[-1]
    comment = first.content[:2] + b"\xff\xfe\x00\x06copy" + first.content[2:]
    table = write_csv(tmp_path, [*pictures[:-1], replace(last, content=comment)], ROCKS)
    assert main.main(["data", "check", str(table)]) == 0
    out = capsys.readouterr().out
    assert "1 group of landmarks has identical images (1 across splits, 1 across sources, 1 across classes)." in out
    assert f"images/{last.name} (test, float rock) = images/{first.name} (train, bedrock)" in out
    assert f"No other mistakes in {table}." in out
