"""Finds landmarks with identical images: the same image in training and test makes scores too high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hirise_imb.data.manifest import Manifest
from hirise_imb.utils.errors import bullet_list

_MAX_SHOWN = 20
"""Number of groups that a message lists; the others are counted."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of landmarks with identical images; each group is some rows of the table of a manifest."""

    groups: tuple[pd.DataFrame, ...]
    """Those across splits first."""
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of groups."""
        return len(self.groups)

    def describe_counts(self) -> str:
        """Returns a clause with the numbers of groups."""
        count = "1 group of landmarks has" if len(self) == 1 else f"{len(self):,} groups of landmarks have"
        across = [
            f"{sum(len({*group[column]}) > 1 for group in self.groups):,} across {name}"
            for column, name in (("split", "splits"), ("source", "sources"), ("label", "classes"))
        ]
        return f"{count} identical images ({', '.join(across)})"

    def describe(self) -> str:
        """Returns a sentence with counts and advice, and a line for each group; the empty string without groups."""
        if not self.groups:
            return ""
        lines = [
            " = ".join(
                f"{image} ({split}, {self.class_names[label]})"
                for image, split, label in group[["image", "split", "label"]].itertuples(index=False)
            )
            for group in self.groups
        ]
        return (
            f"{self.describe_counts()}. A landmark that is tested and trained on, or trained on with two classes, "
            f"makes scores wrong: keep one of each group.{bullet_list(lines, _MAX_SHOWN)}"
        )


def find_duplicates(manifest: Manifest, digests: Sequence[str]) -> Duplicates:
    """Returns the groups of landmarks that share an image.

    Variants of one landmark may be identical, since some landmarks are symmetrical; they don't count.

    Args:
        manifest: data set.
        digests: digest of the pixels or of the file of each image, in the order of the manifest's table.
    """
    table = manifest.table.assign(digest=digests)
    shared = table[table.duplicated("digest", keep=False)]
    groups: dict[frozenset[str], pd.DataFrame] = {}
    for _, images in shared.groupby("digest"):
        landmarks = frozenset(images["landmark"])
        if len(landmarks) > 1:  # landmarks that share several variants are one group
            groups.setdefault(landmarks, images.drop_duplicates("landmark"))
    ordered = sorted(groups.values(), key=lambda images: (len({*images["split"]}) == 1, images["image"].iloc[0]))
    return Duplicates(tuple(ordered), manifest.spec.classes.names)
