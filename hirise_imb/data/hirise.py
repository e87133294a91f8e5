"""The eight classes, the file-name grammar and the layout of the HiRISE labelled landmarks, version 3.2.

Source: Doran, Dunkel, Lu, Wagstaff (2020), Zenodo record 4002935.
"""

import re
from dataclasses import dataclass

IMAGE_SIZE = 227
"""Height and width of every landmark image, in pixels (one grey channel)."""

CLASSES = (
    "other",
    "crater",
    "dark dune",
    "slope streak",
    "bright dune",
    "impact ejecta",
    "swiss cheese",
    "spider",
)
"""Class names; the position is the official class id."""

RARE = tuple(range(1, len(CLASSES)))
"""Ids of the seven classes that are not `other`."""

SPLITS = ("train", "val", "test")

VARIANTS = ("r90", "r180", "r270", "fh", "fv", "brt")
"""Clockwise rotations, mirror, flip, random brightness."""

LABEL_FILE = "labels-map-proj_v3_2.txt"
SPLIT_FILE = "labels-map-proj_v3_2_train_val_test.txt"
CLASS_FILE = "landmarks_map-proj-v3_2_classmap.csv"
OFFICIAL_FILES = (LABEL_FILE, SPLIT_FILE, CLASS_FILE)
IMAGE_FOLDER = "map-proj-v3_2"

_NAME = re.compile(
    rf"(?P<source>[A-Z]{{3}}_[0-9]{{6}}_[0-9]{{4}})_RED-(?P<number>[0-9]{{4}})(?:-(?P<variant>{'|'.join(VARIANTS)}))?\.jpg"
)


@dataclass(frozen=True)
class ImageName:
    """The parts of a landmark image's file name."""

    source: str
    """The HiRISE observation, such as `ESP_011289_1950`."""
    number: str
    variant: str
    """One of `VARIANTS`, or the empty string for an original."""

    @property
    def landmark(self) -> str:
        """The original crop that all variants share, such as `ESP_011289_1950_RED-0012`."""
        return f"{self.source}_RED-{self.number}"


def parse_name(file_name: str) -> ImageName | None:
    """Read `<SOURCE>_RED-<NNNN>[-<variant>].jpg`; None where the name is outside the grammar."""
    match = _NAME.fullmatch(file_name)
    return ImageName(match["source"], match["number"], match["variant"] or "") if match else None
