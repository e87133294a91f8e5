"""Labels from the review page become a new data set, whose test split stays closed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from builders import IMAGE_FOLDER, LABEL_FILE, MINERALS, SPLIT_FILE, names
from PIL import Image

from hirise_imb.data.additions import Additions, describe_additions, plan_additions, read_labels, write_additions
from hirise_imb.data.dataset import DatasetSpec
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.utils.errors import UserError

NEW = "ESP_999999_1000_RED-0001.jpg"


def encode(size: int = 227, mode: str = "L", seed: int = 0) -> bytes:
    """The content of an image file."""
    shape = (size, size) if mode == "L" else (size, size, 3)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    with io.BytesIO() as buffer:
        image.save(buffer, "JPEG")
        return buffer.getvalue()


def save_labels(folder: Path, *rows: str, name: str = "LABELS.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{row}\n" for row in ("id,source,label,queue", *rows)), encoding="utf-8")
    return path


def plan(base: Manifest, folder: Path, *rows: str) -> Additions:
    return plan_additions(base, read_labels([save_labels(folder, *rows)], base.spec.classes))


def add(base: Manifest, folder: Path, *rows: str, content: bytes | None = None) -> Manifest:
    additions = plan(base, folder, *rows)
    contents = {image.id: encode() if content is None else content for image in additions.images}
    return write_additions(base, additions, contents, folder / "new")


def in_source(base: Manifest, split: str, number: int = 9999) -> str:
    """The name of a new landmark in a source of a split."""
    return f"{base.split(split)['source'].iloc[0]}_RED-{number}.jpg"


@pytest.fixture
def base(small_data: Path) -> Manifest:
    return read_manifest(small_data, HIRISE)


def assert_refused(message: str, base: Manifest, folder: Path, *rows: str) -> str:
    with pytest.raises(UserError, match=message) as caught:
        add(base, folder, *rows)
    assert not (folder / "new").exists()
    return str(caught.value)


def test_a_landmark_of_a_new_source_is_trained_on(base: Manifest, tmp_path: Path) -> None:
    new = add(base, tmp_path, f"photos/{NEW},,spider,abc")
    [row] = new.table[new.table["image"] == NEW].to_dict("records")
    assert (row["split"], new.spec.classes[row["label"]], row["source"]) == ("train", "spider", "ESP_999999_1000")
    assert len(new.table) == len(base.table) + 1
    decode_image(new.path(NEW), HIRISE.image_shape)


def test_everything_of_the_data_set_is_in_the_new_one(base: Manifest, tmp_path: Path) -> None:
    new = add(base, tmp_path, f"{NEW},,spider,abc")
    rest = new.table[new.table["image"] != NEW].reset_index(drop=True)
    assert rest.equals(base.table)  # copies included, the official up-sampling
    assert all(new.path(image).read_bytes() == base.path(image).read_bytes() for image in base.table["image"])
    assert names(new.folder.parent) == names(base.folder.parent)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_source_decides_the_split(split: str, base: Manifest, tmp_path: Path) -> None:
    name = in_source(base, split)
    new = add(base, tmp_path, f"{name},,crater,abc")
    assert new.table.set_index("image").loc[name, "split"] == split


def test_a_landmark_of_a_test_source_is_left_out_and_counted(base: Manifest, tmp_path: Path) -> None:
    additions = plan(base, tmp_path, f"{in_source(base, 'test')},,crater,abc", f"{NEW},,other,abc")
    assert [image.file for image in additions.images] == [NEW]
    assert additions.closed == 1
    sentences = describe_additions(additions, base.spec.classes)
    assert sentences == [
        "Added to train: 1 other.",
        "Left out because their sources are in the test split, which stays closed: 1.",
    ]


def test_rows_that_agree_count_once(base: Manifest, tmp_path: Path) -> None:
    first = save_labels(tmp_path, f"{NEW},,crater,abc", f"{NEW},,crater,abc")
    second = save_labels(tmp_path, f"{NEW},,crater,def", name="more.csv")
    labels = read_labels([first, second], base.spec.classes)
    assert len(plan_additions(base, labels).images) == 1


def test_an_image_of_the_data_set_with_the_same_label_is_known(base: Manifest, tmp_path: Path) -> None:
    image, label = base.table[["image", "label"]].iloc[0]
    additions = plan(base, tmp_path, f"{image},,{base.spec.classes[label]},abc")
    assert (additions.images, additions.known) == ((), 1)
    assert describe_additions(additions, base.spec.classes)[0] == "Nothing was added."


def test_an_image_of_the_data_set_with_another_label_is_refused(base: Manifest, tmp_path: Path) -> None:
    image, label = base.table[["image", "label"]].iloc[0]
    other = base.spec.classes[(label + 1) % len(base.spec.classes)]
    assert image in assert_refused("is .* already", base, tmp_path, f"{image},,{other},abc")


def test_a_variant_of_a_landmark_has_its_label(base: Manifest, tmp_path: Path) -> None:
    rows = (f"{NEW},,crater,abc", f"{NEW.replace('.jpg', '-fv.jpg')},,spider,abc")
    assert_refused("line 3: .* is spider, but landmark ESP_999999_1000_RED-0001 is crater", base, tmp_path, *rows)


def test_rows_that_contradict_each_other_are_refused_with_both_lines(base: Manifest, tmp_path: Path) -> None:
    rows = (f"{NEW},,crater,abc", f"{NEW},,spider,abc")
    assert_refused("line 3: .* is spider, but crater in LABELS.csv, line 2", base, tmp_path, *rows)


def test_unknown_classes_are_refused_with_their_lines(base: Manifest, tmp_path: Path) -> None:
    message = assert_refused("2 mistakes", base, tmp_path, f"{NEW},,canal,a", "a.jpg,,crater,a", "b.jpg,,face,a")
    assert "line 2: unknown class 'canal'" in message
    assert "line 4: unknown class 'face'" in message


def test_a_name_outside_the_grammar_is_refused(base: Manifest, tmp_path: Path) -> None:
    assert_refused("photo.jpg is not <SOURCE>_RED-<NNNN>.* rename the image", base, tmp_path, "photo.jpg,,crater,abc")


def test_a_source_that_differs_from_the_name_is_refused(base: Manifest, tmp_path: Path) -> None:
    assert_refused("the source is X, but the file name", base, tmp_path, f"{NEW},X,crater,abc")


def test_a_missing_image_is_refused(base: Manifest, tmp_path: Path) -> None:
    additions = plan(base, tmp_path, f"{NEW},,crater,abc")
    with pytest.raises(UserError, match=f"--images.*\n  {NEW} is missing"):
        write_additions(base, additions, {}, tmp_path / "new")
    assert names(tmp_path) == ["LABELS.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode(64), "64 x 64 image of mode L, but landmark images are 227 x 227"),
        (encode(mode="RGB"), "of mode RGB"),
        (encode()[:2000], "is not a complete JPEG"),
        (b"", "is not a complete JPEG"),
    ],
)
def test_an_image_that_can_not_be_used_is_refused(content: bytes, message: str, base: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        add(base, tmp_path, f"{NEW},,crater,abc", content=content)
    assert names(tmp_path) == ["LABELS.csv"]


def test_a_folder_that_exists_is_left_alone(base: Manifest, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="new exists already"):
        add(base, tmp_path, f"{NEW},,crater,abc")
    assert names(tmp_path / "new") == []


def test_an_interruption_leaves_nothing(base: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hirise_imb.data.additions.read_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        add(base, tmp_path, f"{NEW},,crater,abc")
    assert names(tmp_path) == ["LABELS.csv"]


def test_where_links_are_impossible_images_are_copied(
    base: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    new = add(base, tmp_path, f"{NEW},,crater,abc")
    assert new.path(base.table["image"].iloc[0]).stat().st_nlink == 1


def test_the_label_file_may_list_a_new_image_and_lack_a_last_line_break(own_data: Path, tmp_path: Path) -> None:
    for name in (LABEL_FILE, SPLIT_FILE):
        path = own_data / name
        path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    with (own_data / LABEL_FILE).open("a", encoding="utf-8") as file:
        file.write(f"\n{NEW} 1")
    new = add(read_manifest(own_data, HIRISE), tmp_path, f"{NEW},,crater,abc")
    assert NEW in set(new.table["image"])


def test_the_label_file_may_have_lines_of_blanks(own_data: Path, tmp_path: Path) -> None:
    with (own_data / LABEL_FILE).open("a", encoding="utf-8") as file:
        file.write("  \n\n")
    new = add(read_manifest(own_data, HIRISE), tmp_path, f"{NEW},,crater,abc")
    assert NEW in set(new.table["image"])


def test_an_image_that_the_label_file_alone_lists_with_another_class_is_refused(own_data: Path, tmp_path: Path) -> None:
    with (own_data / LABEL_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{NEW} 1\n")
    base = read_manifest(own_data, HIRISE)
    rows = (f"photos/{NEW},,spider,abc",)
    message = f"LABELS.csv, line 2: photos/{NEW} is spider, but crater in {LABEL_FILE} of the data set"
    assert_refused(message, base, tmp_path, *rows)


def write_minerals(folder: Path) -> Manifest:
    """A small data set in colour whose split file has a column of sources."""
    layout = MINERALS.layout
    (folder / layout.image_folder).mkdir(parents=True)
    rows = [(f"{split}-{k}.jpg", k, split, f"{split}-source") for split in ("train", "val", "test") for k in range(3)]
    for number, (image, *_) in enumerate(rows):
        (folder / layout.image_folder / image).write_bytes(encode(64, "RGB", number))
    texts: dict[str, Sequence[str]] = {
        layout.label_file: [f"{image} {k}" for image, k, *_ in rows],
        layout.split_file: [" ".join(map(str, row)) for row in rows],
        layout.class_file: [f"{k},{name}" for k, name in enumerate(MINERALS.classes)],
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_manifest(folder, MINERALS)


def test_sources_may_be_in_a_column(tmp_path: Path) -> None:
    base = write_minerals(tmp_path / "base")
    rows = ("a/x.jpg,val-source,olivine,q", "y.jpg,s-2,pyroxene,q", "z.jpg,test-source,dust,q")
    new = add(base, tmp_path, *rows, content=encode(64, "RGB"))
    rows_of = {row["image"]: (row["split"], row["source"]) for row in new.table.to_dict("records")}
    assert rows_of["x.jpg"] == ("val", "val-source")
    assert rows_of["y.jpg"] == ("train", "s-2")
    assert "z.jpg" not in rows_of


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["x.jpg,,olivine,q"], "x.jpg has no source, which decides its split"),
        (["x y.jpg,s,olivine,q"], "contains a blank"),
        (["a/x.jpg,s,olivine,q", "b/x.jpg,s,olivine,q"], "have the same file name"),
        (["train-0.jpg,val-source,dust,q"], "is in the data set with the source train-source"),
    ],
)
def test_names_and_sources_in_a_column_are_checked(rows: list[str], message: str, tmp_path: Path) -> None:
    base = write_minerals(tmp_path / "base")
    assert_refused(message, base, tmp_path, *rows)


def test_only_the_official_layout_can_be_added_to(base: Manifest, tmp_path: Path) -> None:
    spec = DatasetSpec("annotation-table", "A table", HIRISE.classes, 227, 1, HIRISE.identity)
    other = Manifest(spec, base.folder, base.table)
    with pytest.raises(UserError, match="not a data set in the official layout"):
        plan(other, tmp_path, f"{NEW},,crater,abc")


def test_a_file_without_labels_is_refused(base: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no labels"):
        read_labels([save_labels(tmp_path)], base.spec.classes)


def test_a_file_of_labels_that_does_not_exist_is_refused(base: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv does not exist: name a file that the review page saved"):
        read_labels([tmp_path / "gone.csv"], base.spec.classes)


def test_another_table_is_refused(base: Manifest, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,class\na,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="lacks source, label"):
        read_labels([tmp_path / "t.csv"], base.spec.classes)


def test_cells_that_a_spreadsheet_would_evaluate_are_read_as_text(base: Manifest, tmp_path: Path) -> None:
    path = save_labels(tmp_path, f"'=1+1/{NEW},,crater,abc", "''quoted.jpg,'+s,crater,abc")
    labels = read_labels([path], base.spec.classes)
    assert [(label.id, label.source) for label in labels] == [(f"=1+1/{NEW}", ""), ("'quoted.jpg", "+s")]


def test_images_are_linked_where_that_is_possible(base: Manifest, tmp_path: Path) -> None:
    new = add(base, tmp_path, f"{NEW},,crater,abc")
    first = base.table["image"].iloc[0]
    assert new.path(first).samefile(base.path(first))
    assert (new.folder.parent / IMAGE_FOLDER).is_dir()
