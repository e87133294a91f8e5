"""Finds the images that are to be predicted: files, members of zips, rows of Parquet tables, landmarks of a data set.

Nothing is read but names, sizes and times, and no list of all images is kept, since an archive has millions.
"""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from hirise_imb.data import DATASETS, SPLITS
from hirise_imb.data.archive import DAMAGE
from hirise_imb.data.dataset import ImageName, NameGrammar
from hirise_imb.data.images import SUFFIXES
from hirise_imb.data.resolve import ARCHIVE, SYNTHETIC
from hirise_imb.prediction.image_tables import check_table, is_image_table, read_footer
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from hirise_imb.data.dataset import DataCard
    from hirise_imb.data.manifest import Manifest

ALL = "all"
"""Value of `--split` for the landmarks of all splits."""

_IMAGE, _ZIP, _TABLE = "image", "zip", "table"
_KINDS = dict.fromkeys(SUFFIXES, _IMAGE) | {".zip": _ZIP, ".parquet": _TABLE}
"""Kind of a file, by its suffix."""


class ImageFile(NamedTuple):
    """An image file, or a member of a zip."""

    id: str
    """Name of the image in the predictions."""
    source: str | None
    """Observation that the image was cut from, where it is known."""
    path: str
    """Path of the file or the zip."""
    member: str
    """Name inside the zip; empty for a file."""
    size: int
    """Size in bytes."""
    stamp: int
    """Time of the last modification in nanoseconds, or CRC-32 of a member."""


class ImageTable(NamedTuple):
    """A Parquet table of encoded images."""

    path: str
    rows: int
    """Number of rows."""
    size: int
    """Size in bytes."""
    stamp: int
    """Time of the last modification in nanoseconds."""


@dataclass(frozen=True)
class _Input:
    """An INPUT argument with the files and folders that it names."""

    text: str
    paths: tuple[str, ...]


class ImageListing:
    """The images that some files, folders, zips and tables contain, in a fixed order.

    Each iteration looks at the disk again.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        """Finds the files and folders that the INPUT arguments name.

        Raises:
            UserError: one of them does not exist, or is of another kind.
        """
        self._inputs = [_expand(text) for text in inputs]
        self._folders = {_place(path) for one in self._inputs for path in one.paths if Path(path).is_dir()}

    def __iter__(self) -> Iterator[ImageFile | ImageTable]:
        """Yields the images of all inputs; an image that several inputs name is listed for the first of them.

        Raises:
            UserError: an input contains no image or can't be read.
        """
        listed: set[str] = set()
        for one in self._inputs:
            is_empty = True
            for path in one.paths:
                place = _place(path)
                if place in listed or self._is_inside_a_folder(place):
                    is_empty = False
                    continue
                listed.add(place)
                for image in _list_path(path):
                    is_empty = False
                    yield image
            if is_empty:
                raise UserError(
                    f"{one.text} contains no images: name images ({', '.join(SUFFIXES)}), zips or folders with them, "
                    "or a Parquet table of encoded images."
                )

    def _is_inside_a_folder(self, place: str) -> bool:
        """Returns whether an input is listed already as part of a folder, which is another input."""
        if _KINDS.get(Path(place).suffix.lower()) == _ZIP:  # zips inside folders are not opened
            return False
        for folder in Path(place).parents:
            if str(folder) in self._folders:
                return not any(part.startswith(".") for part in Path(place).relative_to(folder).parts)
        return False


class LandmarkListing:
    """The canonical images of a data set, in the order of its splits and names."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        """Stores the data set and the name of one of its splits, or `ALL`."""
        self.manifest = manifest
        self.splits = SPLITS if split == ALL else (split,)

    def __iter__(self) -> Iterator[ImageFile]:
        """Yields the canonical image of each landmark, under its name in the data set."""
        for split in self.splits:
            images = self.manifest.canonical_images(split)
            for image, source in zip(images["image"], images["source"], strict=True):
                path = self.manifest.path(image)
                facts = path.stat()
                known = source if self.manifest.has_sources else None
                yield ImageFile(image, known, str(path), "", facts.st_size, facts.st_mtime_ns)


Listing = ImageListing | LandmarkListing


def list_inputs(inputs: Sequence[str], split: str | None, card: DataCard, images: str = "") -> Listing:
    """Returns the images that INPUT arguments name.

    Args:
        inputs: INPUT arguments.
        split: None for images, or a split of the data set that the only INPUT names, or `ALL`. The names of the
            embedded and the downloaded data set, and tables of annotations, stand for all of their landmarks.
        card: data card of a data set in the official layout.
        images: folder of the images of an annotation table; empty for the default.

    Raises:
        UserError: an input can't be used.
    """
    if split is None and len(inputs) == 1 and _is_named_data_set(inputs[0]):
        split = ALL
    if split is None:
        if images:
            raise UserError("--images is the folder of the images of an annotation table: add --split to read one.")
        return ImageListing(inputs)
    from hirise_imb.data.load import load_data

    if len(inputs) > 1 or _KINDS.get(Path(inputs[0]).suffix.lower()) == _IMAGE or _is_pattern(inputs[0]):
        raise UserError(
            f"{inputs[0]}{' and others are' if len(inputs) > 1 else ' is'} not one data set, which alone has splits "
            "and labels: name a data set, or leave out --split and --evaluate."
        )
    manifest = load_data(inputs[0], card, images)
    if split != ALL and manifest.split(split).empty:
        raise UserError(f"{inputs[0]} has no landmarks in the split {split}: choose another --split.")
    return LandmarkListing(manifest, split)


def _is_named_data_set(text: str) -> bool:
    return text in (SYNTHETIC, ARCHIVE) or Path(text).suffix.lower() == ".csv"


def parse_name(name: str) -> ImageName | None:
    """Returns what an image's name or path tells by the grammar of a known data set, whatever the suffix; or None."""
    path = PurePosixPath(name)
    for card in DATASETS.values():
        if isinstance(card.identity, NameGrammar):
            for file in (path.name, *(path.stem + suffix for suffix in SUFFIXES)):
                if parsed := card.identity.parse(file):
                    return parsed
    return None


def parse_source(name: str) -> str | None:
    """Returns the source that an image's name or path tells, or None if it follows no grammar of a known data set."""
    parsed = parse_name(name)
    return parsed.source if parsed else None


def _place(path: str) -> str:
    """Returns an absolute path without `..`, for comparisons; links are not followed, since folders list them too."""
    return os.path.abspath(path)  # noqa: PTH100


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not os.path.lexists(text)


def _expand(text: str) -> _Input:
    """Returns the files and folders that an INPUT argument names; a pattern leaves out what contains no images.

    Raises:
        UserError: there are none, or the file is of another kind.
    """
    if _is_pattern(text):
        found = glob.glob(text, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute patterns)
        # A set, since a pattern with several `**` finds a file more than once.
        matches = sorted({path for path in found if _can_contain_images(path)})
        if not matches:
            raise UserError(f"{text} matches no images, zips, folders or tables of images: correct the pattern.")
        return _Input(text, tuple(matches))
    path = Path(text)
    if not text or not path.exists():
        place = text or "An empty INPUT"
        raise UserError(f"{place} does not exist: name images, folders, zips, Parquet tables or a data set.")
    if not path.is_dir():
        kind = _KINDS.get(path.suffix.lower())
        if kind is None or not path.is_file():
            raise UserError(f"{text} is not an image, zip or Parquet table: name a file that ends in {_suffixes()}.")
        if kind == _TABLE:
            check_table(path)
    return _Input(text, (text,))


def _suffixes() -> str:
    *first, last = _KINDS
    return f"{', '.join(first)} or {last}"


def _can_contain_images(path: str) -> bool:
    if Path(path).is_dir():
        return True
    kind = _KINDS.get(Path(path).suffix.lower())
    return kind in (_IMAGE, _ZIP) if kind != _TABLE else is_image_table(path)


def _list_path(path: str) -> Iterator[ImageFile | ImageTable]:
    """Yields the images of one file or folder that an input names."""
    if Path(path).is_dir():
        yield from _list_folder(path, frozenset())
        return
    kind = _KINDS[Path(path).suffix.lower()]
    if kind == _ZIP:
        yield from _list_zip(path)
    else:
        yield from _list_file(path, kind)


def _list_file(path: str, kind: str) -> Iterator[ImageFile | ImageTable]:
    facts = Path(path).stat()
    if kind == _IMAGE:
        yield ImageFile(to_text(path), parse_source(path), path, "", facts.st_size, facts.st_mtime_ns)
    elif rows := read_footer(path)[1]:
        yield ImageTable(path, rows, facts.st_size, facts.st_mtime_ns)


def _list_folder(folder: str, above: frozenset[str]) -> Iterator[ImageFile | ImageTable]:
    """Yields the images and tables of images in a folder and those inside it, in the order of their names.

    Args:
        folder: path of the folder.
        above: real paths of the folders above it, so that a link to one of them does not lead in circles.
    """
    inside = above | {os.path.realpath(folder)}
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries if entry.name[0] != ".")
    for name, is_folder, is_file in names:
        path = os.path.join(folder, name)  # noqa: PTH118  (Path would drop a leading ./, and is slower)
        kind = _KINDS.get(Path(name).suffix.lower()) if is_file else None
        if is_folder and name != "__MACOSX" and os.path.realpath(path) not in inside:
            yield from _list_folder(path, inside)
        elif kind == _IMAGE or (kind == _TABLE and is_image_table(path)):
            yield from _list_file(path, str(kind))


def _list_zip(path: str) -> Iterator[ImageFile]:
    """Yields the images inside a zip, in its own order; of several members with one name, the last one counts."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in dict.fromkeys(archive.namelist()):
                parts = PurePosixPath(name).parts
                is_hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)
                if name.lower().endswith(SUFFIXES) and not is_hidden:
                    member = archive.getinfo(name)
                    id_ = to_text(f"{path}/{name}")
                    yield ImageFile(id_, parse_source(name), path, name, member.file_size, member.CRC)
    except (OSError, *DAMAGE) as error:
        raise UserError(f"{path} is damaged or not a zip file ({error}): copy or download it again.") from error


def to_text(name: str) -> str:
    """Returns a name in which bytes that are not UTF-8 are written as `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
