"""The official files, read into the table and refused where they contradict themselves."""

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from builders import (
    CLASS_FILE,
    CLASS_LINES,
    CLASSES,
    IMAGE_FOLDER,
    LABEL_FILE,
    MINERALS,
    SOURCES,
    SPLIT_FILE,
    image,
    quick,
    valid_lines,
    write_data,
)
from hypothesis import example, given
from hypothesis import strategies as st

from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, find_invisible, read_manifest
from hirise_imb.data.resolve import import_data
from hirise_imb.utils.errors import UserError

TRAIN = SOURCES["train"]
ORDER = ("", "r90", "r180", "r270", "fh", "fv", "brt")
"""The original, then the variants as the archive's description lists them."""
FIRST = image(TRAIN, 0)
"""What line 1 of `valid_lines()` names: class 0, train."""


def catalogue(folder: Path, *more: str) -> Manifest:
    return read_manifest(write_data(folder, [*valid_lines(), *more]), HIRISE)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_manifest(folder, HIRISE)
    return str(caught.value)


def mistakes(folder: Path, *more: str) -> list[str]:
    """What is said about lines after line 24, where the valid ones end."""
    write_data(folder, [*valid_lines(), *more])
    message, *listed = refusal(folder).split("\n  ")
    count = f"{len(listed)} mistake{'s' if len(listed) > 1 else ''}"
    assert message == f"{folder / SPLIT_FILE} contains {count}; fix the file or import the data again:"
    return listed


# --- the table ---


def test_one_row_for_each_image_in_the_order_of_names(tmp_path: Path) -> None:
    original, variant = image(TRAIN, 9), image(TRAIN, 9, "r90")
    found = catalogue(tmp_path, f"{variant} 4 train", f"{original} 4 train", f"{variant} 4 train", f"{variant} 4 train")
    assert found.table.columns.tolist() == ["image", "landmark", "source", "variant", "label", "split", "copies"]
    assert found.table["image"].tolist() == sorted([*(line.split()[0] for line in valid_lines()), original, variant])
    rows = found.table.set_index("image").loc[[variant, original, FIRST]].to_numpy().tolist()
    assert rows == [
        [f"{TRAIN}_RED-0009", TRAIN, "r90", 4, "train", 3],
        [f"{TRAIN}_RED-0009", TRAIN, "", 4, "train", 1],
        [f"{TRAIN}_RED-0000", TRAIN, "", 0, "train", 1],
    ]
    assert found.path(variant) == tmp_path / IMAGE_FOLDER / variant
    assert found.path(variant).exists()


def test_blank_lines_and_other_files_do_not_matter(tmp_path: Path) -> None:
    labels = [line.rpartition(" ")[0] for line in valid_lines()]
    folder = write_data(tmp_path, ["", *valid_lines(), "  "], labels=["", *labels, ""], classes=[*CLASS_LINES, ""])
    for name in (f"._{FIRST}", "notes.txt", image(TRAIN, 77)):
        (folder / IMAGE_FOLDER / name).touch()
    pd.testing.assert_frame_equal(read_manifest(folder, HIRISE).table, catalogue(tmp_path / "plain").table)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_as_on_windows_or_old_macs(end: str, tmp_path: Path) -> None:
    folder = write_data(tmp_path, valid_lines())
    for name in (CLASS_FILE, LABEL_FILE, SPLIT_FILE):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", end.encode()))
    pd.testing.assert_frame_equal(read_manifest(folder, HIRISE).table, catalogue(tmp_path / "plain").table)


def test_a_split_keeps_the_row_numbers_of_the_table(tmp_path: Path) -> None:
    found = catalogue(tmp_path)
    for split, source in SOURCES.items():
        part = found.split(split)
        assert part["source"].unique().tolist() == [source]
        assert found.table.loc[part.index].equals(part)
    assert sum(len(found.split(split)) for split in SPLITS) == len(found.table)


@quick
@given(st.lists(st.sets(st.sampled_from(ORDER), min_size=1), min_size=1, max_size=5))
@example([set(ORDER[n:]) for n in range(7)])
def test_one_image_stands_for_a_landmark(families: list[set[str]]) -> None:
    more = [f"{image(TRAIN, 10 + n, variant)} 2 train" for n, family in enumerate(families) for variant in family]
    with TemporaryDirectory() as folder:
        found = catalogue(Path(folder), *more)
    kept = found.canonical_images("train")
    expected = [image(TRAIN, 10 + n, min(family, key=ORDER.index)) for n, family in enumerate(families)]
    expected += [line.split()[0] for line in valid_lines()[:8]]
    assert kept["image"].tolist() == sorted(expected, key=found.table["image"].tolist().index)
    assert found.table.loc[kept.index].equals(kept)


def test_counts_are_of_landmarks_images_and_rows(tmp_path: Path) -> None:
    spiders = [image(TRAIN, 20), image(TRAIN, 20, "fh"), image(TRAIN, 20, "fh"), image("ESP_000009_1000", 21, "fv")]
    found = catalogue(tmp_path, *(f"{spider} 7 train" for spider in spiders))
    assert found.landmark_counts("train").tolist() == [1, 1, 1, 1, 1, 1, 1, 3]
    assert found.landmark_counts("train").dtype == np.int64
    assert found.landmark_counts("val").tolist() == [1] * 8
    summary = found.summary()
    assert summary.columns.tolist() == ["split", "label", "class", "sources", "landmarks", "images", "rows"]
    assert summary.shape == (24, 7)
    assert summary["split"].unique().tolist() == list(SPLITS)
    assert summary["class"].tolist() == list(CLASSES) * 3
    row = summary[(summary["split"] == "train") & (summary["class"] == "spider")].iloc[0]
    assert (row["sources"], row["landmarks"], row["images"], row["rows"]) == (2, 3, 4, 5)


def test_a_class_may_be_absent_from_test_and_counts_zero(tmp_path: Path) -> None:
    found = read_manifest(write_data(tmp_path, valid_lines()[:-1]), HIRISE)
    assert found.landmark_counts("test").tolist() == [1] * 7 + [0]
    row = found.summary().iloc[-1]
    assert (row["split"], row["class"], row["landmarks"], row["rows"]) == ("test", "spider", 0, 0)


def test_the_digest_is_of_names_labels_splits_and_copies(tmp_path: Path) -> None:
    more = f"{image(TRAIN, 30)} 3 train"
    lines = [*valid_lines(), more]
    changed = {
        "same": lines[::-1],
        "name": [*valid_lines(), f"{image(TRAIN, 31)} 3 train"],
        "label": [*valid_lines(), f"{image(TRAIN, 30)} 4 train"],
        "copies": [*lines, more],
        "fewer": valid_lines(),
        "split": [line.replace(" val", " *").replace(" test", " val").replace(" *", " test") for line in lines],
    }
    digest = read_manifest(write_data(tmp_path / "one", lines), HIRISE).digest
    digests = {what: read_manifest(write_data(tmp_path / what, new), HIRISE).digest for what, new in changed.items()}
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert digests.pop("same") == digest
    assert len({digest, *digests.values()}) == 6


def test_the_digest_of_hirise_data_does_not_depend_on_the_release(tmp_path: Path) -> None:
    # Studies are continued by it.
    digest = read_manifest(write_data(tmp_path, valid_lines()), HIRISE).digest
    assert digest == "692246e526504db3da2bf13b8a7f9e2f7f67edb732031c39a2577c29c1d1068a"


# --- mistakes ---

A_LANDMARK = image(TRAIN, 50)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"{A_LANDMARK} 3"], rf"expected `filename class_id set`, found '{A_LANDMARK} 3'"),
        (["\tX  X "], "expected `filename class_id set`, found 'X  X'"),
        ([f"{A_LANDMARK} 3 train twice"], rf"expected `filename class_id set`, found '{A_LANDMARK} 3 train twice'"),
        ([f"{A_LANDMARK} 8 train"], "unknown class id '8'"),
        ([f"{A_LANDMARK} -1 train"], "unknown class id '-1'"),
        ([f"{A_LANDMARK} 03 train"], "unknown class id '03'"),
        ([f"{A_LANDMARK} crater train"], "unknown class id 'crater'"),
        ([f"{A_LANDMARK} 3 valid"], "unknown set name 'valid', expected one of train, val, test"),
        (["a.jpg 3 train"], r"file name 'a.jpg' is not <SOURCE>_RED-<NNNN>[-<variant>].jpg"),
        ([f"._{A_LANDMARK} 3 train"], rf"file name '._{A_LANDMARK}' is not <SOURCE>_RED-<NNNN>[-<variant>].jpg"),
        ([f"{FIRST} 1 train"], f"{FIRST} has class 'crater', but class 'other' earlier"),
        ([f"{FIRST} 0 val"], f"{FIRST} has set 'val', but set 'train' earlier"),
        (
            [f"{image(TRAIN, 0, 'r90')} 0 test"],
            f"{TRAIN}_RED-0000 has set 'test', but set 'train' earlier",
        ),
        ([f"{A_LANDMARK} 0 test"], f"{TRAIN} has set 'test', but set 'train' earlier"),
    ],
)
def test_a_mistake_of_the_split_file_is_named_with_its_line(lines: list[str], expected: str, tmp_path: Path) -> None:
    assert mistakes(tmp_path, *lines) == [f"line 25: {expected}"]


def test_all_mistakes_come_in_one_message(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "x", f"{FIRST} 0 train", f"{A_LANDMARK} 9 dev", "", f"{FIRST} 2 train")
    assert found == [
        "line 25: expected `filename class_id set`, found 'x'",
        "line 27: unknown class id '9'",
        "line 27: unknown set name 'dev', expected one of train, val, test",
        f"line 29: {FIRST} has class 'dark dune', but class 'other' earlier",
    ]


def test_many_mistakes_are_counted_and_the_first_fifty_shown(tmp_path: Path) -> None:
    write_data(tmp_path, [*valid_lines(), *(["x"] * 60)])
    message = refusal(tmp_path)
    assert "contains 60 mistakes" in message
    assert "line 74:" in message
    assert "line 75:" not in message
    assert message.endswith("\n  ... and 10 more")


def test_variants_of_one_landmark_show_one_class(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"{A_LANDMARK} 3 train", f"{image(TRAIN, 50, 'r90')} 4 train")
    assert len(found) == 1
    assert re.match(rf"line 26: {TRAIN}_RED-0050.* has class 'bright dune', but class 'slope streak' earlier", found[0])


def test_both_label_files_must_agree(tmp_path: Path) -> None:
    labels = [line.rpartition(" ")[0] for line in valid_lines()]
    write_data(tmp_path, valid_lines(), labels=[f"{FIRST} 5", *labels[2:]])
    found = refusal(tmp_path).split("\n  ")[1:]
    assert found == [
        f"line 1: {FIRST} has class 0, but 5 in {LABEL_FILE}",
        f"line 2: {image(TRAIN, 1)} has class 1, but no class in {LABEL_FILE}",
    ]


def test_mistakes_of_the_label_file(tmp_path: Path) -> None:
    write_data(tmp_path, valid_lines(), labels=[f"{FIRST} 0", f"{FIRST}", f"{FIRST} 8", f"{FIRST} 1", "a b c"])
    assert refusal(tmp_path).split("\n  ") == [
        f"{tmp_path / LABEL_FILE} contains 4 mistakes; fix the file or import the data again:",
        f"line 2: expected `filename class_id`, found '{FIRST}'",
        "line 3: unknown class id '8'",
        f"line 4: {FIRST} has class 1, but class 0 earlier",
        "line 5: expected `filename class_id`, found 'a b c'",
    ]


def test_missing_images_are_counted_and_five_named(tmp_path: Path) -> None:
    names = sorted(line.split()[0] for line in valid_lines())
    write_data(tmp_path, valid_lines(), images=names[:2] + names[9:] + [f"._{name}" for name in names])
    message = refusal(tmp_path)
    assert message == (
        f"7 of 24 images named in {SPLIT_FILE} are missing from {tmp_path / IMAGE_FOLDER} "
        f"(first: {', '.join(names[2:7])}): import the data again, or remove their lines."
    )


def test_a_missing_image_folder_is_named(tmp_path: Path) -> None:
    write_data(tmp_path, valid_lines(), images=[])
    (tmp_path / IMAGE_FOLDER).rmdir()
    with pytest.raises(UserError, match=rf"^The image folder .*{IMAGE_FOLDER} is missing: import the complete archive"):
        read_manifest(tmp_path, HIRISE)


@pytest.mark.parametrize("split", SPLITS)
def test_no_split_may_be_empty(split: str, tmp_path: Path) -> None:
    write_data(tmp_path, [line for line in valid_lines() if not line.endswith(split)])
    with pytest.raises(UserError, match=rf"{SPLIT_FILE} contains 1 mistake; .*\n  set '{split}' is empty$"):
        read_manifest(tmp_path, HIRISE)


def test_every_class_needs_a_training_landmark(tmp_path: Path) -> None:
    gone = {f"{image(TRAIN, k)} {k} train" for k in (2, 7)}
    write_data(tmp_path, [line for line in valid_lines() if line not in gone])
    assert refusal(tmp_path).split("\n  ")[1:] == [
        "class 'dark dune' has no training landmark",
        "class 'spider' has no training landmark",
    ]


def test_an_empty_split_file(tmp_path: Path) -> None:
    assert refusal(write_data(tmp_path, [])).split("\n  ")[1:] == [f"set {split!r} is empty" for split in SPLITS]


@pytest.mark.parametrize("name", [LABEL_FILE, SPLIT_FILE, CLASS_FILE])
def test_an_official_file_that_is_missing_a_folder_or_no_text(name: str, tmp_path: Path) -> None:
    path = write_data(tmp_path, valid_lines()) / name
    path.write_bytes(b"0,other\n\xff\xfe")
    with pytest.raises(UserError, match=rf"{name} is not UTF-8 text \(byte 8\): fetch or import the data again\.$"):
        read_manifest(tmp_path, HIRISE)
    path.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing: name a folder or zip in the official layout\.$"):
        read_manifest(tmp_path, HIRISE)
    path.mkdir()
    with pytest.raises(UserError, match=rf"{name} can't be read \(Is a directory\): fetch or import the data again\.$"):
        read_manifest(tmp_path, HIRISE)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (CLASS_LINES[:-1], ["missing line: `7,spider`"]),
        ([*CLASS_LINES, "8,boulder"], ["unexpected line 9: `8,boulder`"]),
        (
            CLASS_LINES[::-1],
            [
                f"line {number} is `{line}`, expected `{wanted}`"
                for number, (line, wanted) in enumerate(zip(CLASS_LINES[::-1], CLASS_LINES, strict=True), 1)
            ],
        ),
        (
            ["id,name", *CLASS_LINES],
            [
                *(
                    f"line {number} is `{line}`, expected `{wanted}`"
                    for number, (line, wanted) in enumerate(pairwise(["id,name", *CLASS_LINES]), 1)
                ),
                "unexpected line 9: `7,spider`",
            ],
        ),
        (["", "0,bright dune", *CLASS_LINES[1:]], ["line 2 is `0,bright dune`, expected `0,other`"]),
    ],
    ids=["fewer", "more", "another order", "a header", "another name"],
)
def test_another_class_map_is_refused(classes: list[str], expected: list[str], tmp_path: Path) -> None:
    write_data(tmp_path, valid_lines(), classes=classes)
    assert refusal(tmp_path).split("\n  ") == [
        f"{tmp_path / CLASS_FILE} does not list the classes of hirise-v3_2; fix the file, or choose data of this data "
        "set:",
        *expected,
    ]


# --- other data sets ---

MINERAL_LINES = (
    "a.jpg 0 train S1",
    "b.jpg 1 train S1",
    "b.jpg 1 train S1",
    "c.jpg 2 train S2",
    "d.jpg 1 val S3",
    "e.jpg 0 test S4",
)


def write_minerals(folder: Path, *lines: str) -> Path:
    return write_data(folder, lines or MINERAL_LINES, spec=MINERALS)


def mineral_mistakes(folder: Path, *lines: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_manifest(write_minerals(folder, *MINERAL_LINES, *lines), MINERALS)
    return str(caught.value).split("\n  ")[1:]


def test_the_source_column_gives_the_sources_and_every_image_is_a_landmark(tmp_path: Path) -> None:
    found = read_manifest(write_minerals(tmp_path), MINERALS)
    assert found.table.to_numpy().tolist() == [
        ["a.jpg", "a.jpg", "S1", "", 0, "train", 1],
        ["b.jpg", "b.jpg", "S1", "", 1, "train", 2],
        ["c.jpg", "c.jpg", "S2", "", 2, "train", 1],
        ["d.jpg", "d.jpg", "S3", "", 1, "val", 1],
        ["e.jpg", "e.jpg", "S4", "", 0, "test", 1],
    ]
    assert found.canonical_images("train")["image"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.path("a.jpg") == tmp_path / "images" / "a.jpg"


def test_counts_have_one_entry_for_each_class_of_the_data_set(tmp_path: Path) -> None:
    found = read_manifest(write_minerals(tmp_path), MINERALS)
    assert found.landmark_counts("train").tolist() == [1, 1, 1]
    assert found.landmark_counts("test").tolist() == [1, 0, 0]
    assert found.summary()["class"].tolist() == ["dust", "olivine", "pyroxene"] * 3


def test_the_source_column_is_checked(tmp_path: Path) -> None:
    assert mineral_mistakes(
        tmp_path, "f.jpg 0 train", "f.jpg 0 train S 5", "f.jpg 3 train S1", "d.jpg 1 val S5", "f.jpg 0 test S1"
    ) == [
        "line 7: expected `filename class_id set source`, found 'f.jpg 0 train'",
        "line 8: expected `filename class_id set source`, found 'f.jpg 0 train S 5'",
        "line 9: unknown class id '3'",
        "line 10: d.jpg has source 'S5', but source 'S3' earlier",
        "line 11: S1 has set 'test', but set 'train' earlier",
    ]


def test_invisible_characters_of_names_are_refused_where_any_name_is_valid(tmp_path: Path) -> None:
    assert mineral_mistakes(tmp_path, "f\u202e.jpg 0 train S1", "f.jpg 0 train S\u200b1") == [
        r"line 7: the file name 'f\u202e.jpg' or source 'S1' contains the invisible character U+202E",
        r"line 8: the file name 'f.jpg' or source 'S\u200b1' contains the invisible character U+200B",
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dark dune", ""),
        ("Düne №1, 沙丘 🏜", ""),
        ("a\nb", "U+000A"),
        ("a\x1b[31m", "U+001B"),
        ("a\u00adb", "U+00AD"),
        ("a\u200db\n", "U+200D"),
        ("\u202egpj", "U+202E"),
        ("a\ud800", "U+D800"),
        ("a\u2028b", "U+2028"),
        ("a\u2029b", "U+2029"),
        ("a\U000e0041", "U+E0041"),
    ],
)
def test_the_first_invisible_character_of_a_name_is_found(name: str, code: str) -> None:
    assert find_invisible(name) == code


def test_the_digest_covers_the_source_column(tmp_path: Path) -> None:
    lines = [*MINERAL_LINES[:3], "c.jpg 2 train S1", *MINERAL_LINES[4:]]
    one, other = write_minerals(tmp_path / "one"), write_minerals(tmp_path / "other", *lines)
    assert read_manifest(one, MINERALS).digest != read_manifest(other, MINERALS).digest


def test_the_classes_are_those_of_the_data_set(tmp_path: Path) -> None:
    write_data(tmp_path, MINERAL_LINES, spec=MINERALS, classes=CLASS_LINES)
    with pytest.raises(
        UserError, match=r"does not list the classes of minerals; .*:\n  line 1 is `0,other`, expected "
    ):
        read_manifest(tmp_path, MINERALS)


# --- the real thing ---


@pytest.mark.real
@pytest.mark.skipif("HIRISE_SAMPLE" not in os.environ, reason="HIRISE_SAMPLE names no real landmarks")
def test_the_real_sample(tmp_path: Path) -> None:
    folder = import_data(Path(os.environ["HIRISE_SAMPLE"]), tmp_path, HIRISE.layout)
    found = read_manifest(folder, HIRISE)
    assert len(found.table) == 3616
    assert found.table["copies"].sum() == 3747
    assert {split: found.landmark_counts(split).tolist() for split in SPLITS} == {
        "train": [1620, 178, 28, 69, 53, 5, 52, 8],
        "val": [540, 61, 10, 30, 7, 2, 9, 2],
        "test": [540, 58, 9, 22, 69, 2, 11, 7],
    }
    assert (found.split("test")["variant"] == "").all()
    per_source = found.table.groupby("source")["split"].nunique()
    assert (per_source == 1).all()
    # Repeated rows and landmarks without an original are in it, and are read as such.
    lines = Counter((folder / SPLIT_FILE).read_text().split()[::3])
    assert found.table.set_index("image")["copies"].to_dict() == lines
    originals = found.table[found.table["variant"] == ""]["landmark"]
    assert set(originals) < set(found.table["landmark"])
    for split in SPLITS:
        kept = found.canonical_images(split)
        assert kept["landmark"].is_unique
        counts = np.bincount(kept["label"], minlength=8)
        assert counts.tolist() == found.landmark_counts(split).tolist()
        with_original = set(originals) & set(kept["landmark"])
        assert set(kept.loc[kept["variant"] == "", "landmark"]) == with_original
