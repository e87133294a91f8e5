"""The facts of a data set: its classes, the format of its images, and where an image's landmark and source are found.

Everything outside this room reads these facts from the `DatasetSpec` of the data at hand, so that no module knows the
classes or the image size of one particular data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

SPLITS = ("train", "val", "test")

_MAX_SIDE = 1 << 14
"""Rows and columns that an image may have; only a damaged file names larger ones."""


def check_image_shape(shape: Sequence[int]) -> None:
    """Checks rows, columns and channels of an image, as a file gives them.

    Raises:
        ValueError: they are not two numbers of pixels that fit into memory, and 1 or 3.
    """
    is_valid = len(shape) == 3 and all(type(size) is int for size in shape)
    if not is_valid or not all(1 <= side <= _MAX_SIDE for side in shape[:2]) or shape[2] not in (1, 3):
        raise ValueError(f"images have {' x '.join(map(str, shape))} numbers")


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, in the order of their ids.

    Raises:
        ValueError: fewer than two classes, a repeated name, or a majority class that is not among them.
    """

    names: tuple[str, ...]
    """Names of the classes; the position of a name is its class id."""
    majority: str | None = None
    """The class that most landmarks belong to, if one dominates; all other classes count as rare."""

    def __post_init__(self) -> None:
        """Checks the names."""
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be two or more different classes, got {self.names}")
        if self.majority is not None and self.majority not in self.names:
            raise ValueError(f"majority must be None or one of {self.names}, got {self.majority!r}")

    def __len__(self) -> int:
        """Returns the number of classes."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names, in the order of the ids."""
        return iter(self.names)

    def __getitem__(self, label: int) -> str:
        """Returns the name of a class id."""
        return self.names[label]

    @property
    def majority_id(self) -> int | None:
        """Id of the majority class, or None without one."""
        return None if self.majority is None else self.names.index(self.majority)

    @property
    def rare_ids(self) -> tuple[int, ...]:
        """Ids of all classes but the majority class; all ids without one."""
        return tuple(label for label, name in enumerate(self.names) if name != self.majority)


@dataclass(frozen=True)
class ImageName:
    """The identity of an image: its landmark, the source it was cut from, and its variant."""

    landmark: str
    """The original crop that all variants share, such as `ESP_011289_1950_RED-0012`."""
    source: str
    """The observation, such as `ESP_011289_1950`."""
    variant: str
    """An augmented copy's suffix, or the empty string for an original."""


@dataclass(frozen=True)
class NameGrammar:
    """File names that contain landmark, source and variant.

    Raises:
        ValueError: the pattern lacks one of the groups `landmark`, `source` and `variant`.
    """

    pattern: str
    """Regular expression of a complete file name, with the groups `landmark`, `source` and (optional) `variant`."""
    form: str
    """The grammar as messages show it, such as `<SOURCE>_RED-<NNNN>[-<variant>].jpg`."""
    variants: tuple[str, ...] = ()
    """Suffixes of augmented copies. Where the original is missing, the first that exists replaces it."""

    def __post_init__(self) -> None:
        """Checks the groups of the pattern."""
        if missing := {"landmark", "source", "variant"} - set(self._expression.groupindex):
            raise ValueError(f"pattern lacks the groups {', '.join(sorted(missing))}: {self.pattern}")

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def parse(self, file_name: str) -> ImageName | None:
        """Returns the parts of a file name, or None if the name does not follow the grammar."""
        match = self._expression.fullmatch(file_name)
        return ImageName(match["landmark"], match["source"], match["variant"] or "") if match else None


@dataclass(frozen=True)
class SourceColumn:
    """File names are arbitrary: the split file gives the source of an image as a fourth field.

    Every image is then a landmark of its own, without variants.
    """

    variants = ()


@dataclass(frozen=True)
class NoSources:
    """The data set names no sources: every image is a landmark and a source of its own, without variants.

    Confidence intervals and tests then hold for images alone: how scores vary between observations is unknown.
    """

    variants = ()


@dataclass(frozen=True)
class Archive:
    """A file that can be downloaded, and how to verify that it is the right one."""

    name: str
    address: str
    size: int
    """Size in bytes."""
    md5: str
    page: str
    """Web page from which a person can download the file."""


@dataclass(frozen=True)
class Layout:
    """Names of the files and of the image folder inside a data folder."""

    label_file: str
    """Name of the file with lines `filename class_id`."""
    split_file: str
    """Name of the file with lines `filename class_id set`, and a fourth field with `SourceColumn`; repeated lines are
    up-sampling."""
    class_file: str
    """Name of the file with lines `id,name`."""
    image_folder: str

    @property
    def files(self) -> tuple[str, str, str]:
        """The three text files."""
        return self.label_file, self.split_file, self.class_file


@dataclass(frozen=True)
class DatasetSpec:
    """The facts of one labelled data set.

    Raises:
        ValueError: the image size or the number of channels is impossible.
    """

    name: str
    """Name of the data set in study definitions, or of its layout if its facts were read from its files."""
    title: str
    classes: ClassSet
    image_size: int
    """Height and width of every image, in pixels."""
    channels: int
    """1 (grey) or 3 (colour)."""
    identity: NameGrammar | SourceColumn | NoSources
    """Where landmark and source of an image are found."""

    def __post_init__(self) -> None:
        """Checks the image format."""
        if self.image_size < 1 or self.channels not in (1, 3):
            raise ValueError(
                f"images must have a positive size and 1 or 3 channels, got {self.image_size} and {self.channels}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of one image."""
        return (self.image_size, self.image_size, self.channels)


@dataclass(frozen=True)
class DataCard(DatasetSpec):
    """A data set in the official layout, whose facts are known in advance: data that differs from them is refused."""

    identity: NameGrammar | SourceColumn
    layout: Layout
    citation: str
    licence: str
    archive: Archive | None = None
    """Where the published data set can be downloaded."""
