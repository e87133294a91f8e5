"""Adds landmarks that a person has labelled to a data set: a new data set in the official layout."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hirise_imb.data.dataset import ClassSet, DataCard, ImageName, SourceColumn
from hirise_imb.data.images import UnusableImage, decode_content
from hirise_imb.data.manifest import Manifest, raise_mistakes, read_label_file, read_manifest
from hirise_imb.data.tables import read_columns, read_strings
from hirise_imb.utils.errors import UserError, bullet_list
from hirise_imb.utils.files import ensure_folder, file_mask, write_text

COLUMNS = ("id", "source", "label", "queue")
"""Columns of LABELS.csv: identifier of the image in the predictions, its source, the name of its class, and the digest
of the review queue that it was labelled in, which is for information only: nothing reads it."""

TEXT_MARK = "'"
"""First character of a cell whose text begins with one of `FORMULA_STARTS`, or with this mark. Spreadsheet programs
then show the text, and don't evaluate it as a formula."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", TEXT_MARK)
"""What the text of a cell must not begin with."""

_MAX_SHOWN = 50
"""Number of images that one message lists; the others are counted."""


@dataclass(frozen=True)
class Label:
    """A label that a person gave to an image."""

    id: str
    source: str
    """Source of the image; empty where it is unknown."""
    class_name: str
    place: str
    """File and line, such as `LABELS.csv, line 2`, which messages name."""


@dataclass(frozen=True)
class Addition:
    """A labelled image that becomes part of a data set."""

    id: str
    file: str
    """Name of the file in the new data set."""
    name: ImageName
    label: int
    """Class id."""
    split: str


@dataclass(frozen=True)
class Additions:
    """What becomes of some labels."""

    images: tuple[Addition, ...]
    """New images, in the order of their labels."""
    known: int
    """Number of labelled images that the data set has already, with the same label."""
    closed: int
    """Number of labelled images that are left out because their source is in the test split."""


def read_labels(paths: Sequence[Path], classes: ClassSet) -> list[Label]:
    """Reads files that the review page saved; a row that repeats an earlier one counts once.

    Raises:
        UserError: a file is missing or can't be read, a class is unknown, or two rows contradict each other.
    """
    labels: dict[str, Label] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: name a file that the review page saved.")
        required = COLUMNS[:3]
        if missing := [column for column in required if column not in read_columns(path)]:
            raise UserError(
                f"{path} is not a CSV file with the columns {', '.join(required)} (it lacks {', '.join(missing)}): "
                "name a file that the review page saved."
            )
        mistakes = []
        rows = read_strings(path, required).map(_remove_mark)
        for line, (id_, source, name) in enumerate(rows.itertuples(index=False), 2):
            first = labels.setdefault(id_, Label(id_, source, name, f"{path.name}, line {line}"))
            if not id_:
                mistakes.append(f"line {line}: the id is empty")
            elif name not in classes.names:
                mistakes.append(f"line {line}: unknown class {name!r}, expected one of {', '.join(classes)}")
            elif first.class_name != name:
                mistakes.append(f"line {line}: {id_} is {name}, but {first.class_name} in {first.place}")
        raise_mistakes(path, mistakes)
    if not labels:
        raise UserError(f"{', '.join(map(str, paths))} contains no labels: label images on the review page first.")
    return list(labels.values())


def plan_additions(base: Manifest, labels: Sequence[Label]) -> Additions:
    """Decides for each label whether its image is added, and to which split.

    The source decides: a landmark of a known source goes to the split of its source, so that no source is in two
    splits. A landmark of a source in the test split is left out, since scores on a test split that grows with what a
    model has found are no longer comparable, and biased. A new source goes to the training split: validation keeps its
    composition, so that validation scores before and after stay comparable.

    Raises:
        UserError: the data set is not in the official layout, or labels contradict it or the grammar of its names.
    """
    card = _require_card(base)
    split_of = dict(zip(base.table["source"], base.table["split"], strict=True))
    known = {image: (int(label), source) for image, label, source in base.table[["image", "label", "source"]].values}
    label_of = dict(zip(base.table["landmark"], base.table["label"], strict=True))
    listed = read_label_file(base.folder.parent / card.layout.label_file, card.classes)
    first_of_file: dict[str, Label] = {}
    images, n_known, n_closed = [], 0, 0
    mistakes = []
    for label in labels:
        file = PurePosixPath(label.id).name
        class_id = card.classes.names.index(label.class_name)
        name = _identify(card, file, label.source)
        if isinstance(name, str):
            mistakes.append(f"{label.place}: {name}")
            continue
        if file in known and known[file][1] != name.source:
            mistakes.append(f"{label.place}: {file} is in the data set with the source {known[file][1]}")
        elif (given := label_of.setdefault(name.landmark, class_id)) != class_id:
            mistakes.append(
                f"{label.place}: {label.id} is {label.class_name}, but landmark {name.landmark} is "
                f"{card.classes[int(given)]} already"
            )
        elif (given := listed.get(file, class_id)) != class_id:  # the split file need not list this image
            mistakes.append(
                f"{label.place}: {label.id} is {label.class_name}, but {card.classes[given]} in "
                f"{card.layout.label_file} of the data set"
            )
        elif file in known:
            n_known += 1
        elif (first := first_of_file.setdefault(file, label)) is not label:
            # A name in the grammar identifies the image, wherever it is; other names do not.
            if isinstance(card.identity, SourceColumn):
                mistakes.append(f"{label.place}: {label.id} and {first.id} have the same file name: rename one of them")
        elif (split := split_of.get(name.source, "train")) == "test":
            n_closed += 1
        else:
            images.append(Addition(label.id, file, name, class_id, split))
    if mistakes:
        raise UserError(
            f"{len(mistakes)} of {len(labels)} labels can't be added to {base.folder.parent}; correct or remove their "
            f"lines:{bullet_list(mistakes, _MAX_SHOWN)}"
        )
    return Additions(tuple(images), n_known, n_closed)


def write_additions(base: Manifest, additions: Additions, contents: Mapping[str, bytes], folder: Path) -> Manifest:
    """Writes a data set with all images of `base` and the new ones, and returns its manifest.

    The images of `base` are hard links, which take no space; where the file system has none, copies. The folder appears
    complete or not at all.

    Args:
        base: data set in the official layout.
        additions: new images.
        contents: content of the image file of each new image, by id.
        folder: new folder.

    Raises:
        UserError: the folder exists or can't be written to, or a new image is missing or can't be used.
    """
    card = _require_card(base)
    if folder.exists():
        raise UserError(f"{folder} exists already: choose a new folder with --out, or delete this one.")
    _check_contents(additions, contents, card)
    parent = ensure_folder(folder.absolute().parent)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    try:
        (part / card.layout.image_folder).mkdir()
        for image in base.table["image"]:
            _link_or_copy(base.path(image), part / card.layout.image_folder / image)
        for image in additions.images:
            (part / card.layout.image_folder / image.file).write_bytes(contents[image.id])
        _write_text_files(base.folder.parent, part, card, additions)
        read_manifest(part, card)
        part.chmod(0o777 & ~file_mask())  # only its owner can read a folder of mkdtemp
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_manifest(folder, card)


def _require_card(base: Manifest) -> DataCard:
    if not isinstance(base.spec, DataCard):
        raise UserError(
            f"The data set of {base.folder} is not a data set in the official layout, which alone landmarks can be "
            "added to: add rows to its annotation table by hand (docs/data.md)."
        )
    return base.spec


def _identify(card: DataCard, file: str, source: str) -> ImageName | str:
    """Returns landmark and source of a new image, or what is wrong with its name or source."""
    if isinstance(card.identity, SourceColumn):
        if not source:
            return f"{file} has no source, which decides its split: write it into the column `source`"
        if any(len(text.split()) != 1 for text in (file, source)):
            return f"the file name {file!r} or the source {source!r} contains a blank: rename the image and its id"
        return ImageName(file, source, "")
    name = card.identity.parse(file)
    if name is None:
        return f"the file name {file} is not {card.identity.form}: rename the image, and its id in the labels"
    if source not in ("", name.source):
        return f"the source is {source}, but the file name {file} says {name.source}"
    return name


def _check_contents(additions: Additions, contents: Mapping[str, bytes], card: DataCard) -> None:
    """Checks that every new image is there, and is a landmark image of the data set."""

    def find_mistakes() -> Iterator[str]:
        for image in additions.images:
            if image.id not in contents:
                yield f"{image.id} is missing"
                continue
            try:
                decode_content(contents[image.id], card.image_shape)
            except UnusableImage as error:
                yield f"{image.id} {error}"

    if mistakes := list(find_mistakes()):
        raise UserError(
            f"{len(mistakes)} of {len(additions.images)} labelled images can't be added; name the places of all images "
            f"with --images, and leave out labels of images that can't be used:{bullet_list(mistakes, _MAX_SHOWN)}"
        )


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(path, target)


def _write_text_files(base: Path, folder: Path, card: DataCard, additions: Additions) -> None:
    """Writes the text files of a data set with new lines at their end; the lines of `base` stay as they are."""
    layout = card.layout
    # The label file may list images that the split file does not.
    listed = read_label_file(base / layout.label_file, card.classes)
    labels = [f"{image.file} {image.label}" for image in additions.images if image.file not in listed]
    by_column = isinstance(card.identity, SourceColumn)
    rows = [
        f"{image.file} {image.label} {image.split}{f' {image.name.source}' if by_column else ''}"
        for image in additions.images
    ]
    for name, lines in ((layout.label_file, labels), (layout.split_file, rows), (layout.class_file, [])):
        text = (base / name).read_text(encoding="utf-8")
        end = "" if not lines or not text or text.endswith("\n") else "\n"
        write_text(folder / name, text + end + "".join(f"{line}\n" for line in lines))


def _remove_mark(cell: str) -> str:
    return cell.removeprefix(TEXT_MARK)


def describe_additions(additions: Additions, classes: ClassSet) -> list[str]:
    """Returns sentences that say what was added and what was left out."""
    sentences = []
    for split in ("train", "val"):
        counts = Counter(image.label for image in additions.images if image.split == split)
        if counts:
            names = ", ".join(f"{counts[label]} {classes[label]}" for label in sorted(counts))
            sentences.append(f"Added to {split}: {names}.")
    if not additions.images:
        sentences.append("Nothing was added.")
    if additions.known:
        sentences.append(f"In the data set already, with the same label: {additions.known}.")
    if additions.closed:
        sentences.append(
            f"Left out because their sources are in the test split, which stays closed: {additions.closed}."
        )
    return sentences
