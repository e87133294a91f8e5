"""Reads the image files of predictions again, by the ids under which they were predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from hirise_imb.data import HIRISE
from hirise_imb.data.images import UnusableImage
from hirise_imb.prediction.inputs import ImageFile, ImageTable, list_inputs
from hirise_imb.prediction.reading import ShardReader
from hirise_imb.prediction.shards import Shard, plan_shards
from hirise_imb.utils.errors import UserError, bullet_list

_MAX_SHOWN = 10
"""Number of images that one message lists; the others are counted."""


def read_images(ids: Collection[str], places: Sequence[str]) -> dict[str, bytes]:
    """Returns the contents of image files by id; ids that are not found are left out.

    An image may have moved since it was predicted: the file whose path has the most last parts in common with the id is
    the image, one at least. Images in Parquet tables are found by their ids alone.

    Args:
        ids: identifiers of predicted images.
        places: images, folders, zips and tables of images, such as the INPUT of the prediction.

    Raises:
        UserError: a place can't be read, or two files fit an id equally well and differ.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for id_ in ids:
        wanted[PurePosixPath(id_).name].append(id_)
    best: dict[str, tuple[int, list[ImageFile]]] = {}
    contents: dict[str, bytes] = {}
    for image in list_inputs(places, None, HIRISE):
        if not isinstance(image, ImageFile):
            contents |= _read_rows(image, set(ids))
            continue
        for id_ in wanted.get(PurePosixPath(image.id).name, ()):
            common = _count_common_parts(id_, image.id)
            most, files = best.get(id_, (0, []))
            if common > most:
                best[id_] = common, [image]
            elif common == most:
                files.append(image)
    return contents | _read_files({id_: files for id_, (_, files) in best.items() if id_ not in contents})


def _count_common_parts(one: str, other: str) -> int:
    """Returns the number of equal parts at the end of two paths; an equal path counts as one more."""
    count = 0
    for a, b in zip(reversed(PurePosixPath(one).parts), reversed(PurePosixPath(other).parts), strict=False):
        if a != b:
            return count
        count += 1
    return count + (one == other)


def _read_files(files: dict[str, list[ImageFile]]) -> dict[str, bytes]:
    """Returns the content of the file of each id; several files must have the same content."""
    pairs = [(image, id_) for id_, images in files.items() for image in images]
    pairs.sort(key=lambda pair: pair[0].path)  # the members of a zip one after the other
    contents: dict[str, bytes] = {}
    different = {}
    with ShardReader() as reader:
        shard = Shard(0, tuple(image for image, _ in pairs))
        for encoded, (_, id_) in zip(reader.read(shard), pairs, strict=True):
            with suppress(UnusableImage):  # the file has vanished
                content = encoded.read()
                if contents.setdefault(id_, content) != content:
                    different[id_] = f"{id_}: {', '.join(image.id for image in files[id_])}"
    if different:
        raise UserError(
            f"{len(different)} images can't be told from others of the same name; name only their folders with "
            f"--images:{bullet_list(list(different.values()), _MAX_SHOWN)}"
        )
    return contents


def _read_rows(table: ImageTable, ids: Collection[str]) -> dict[str, bytes]:
    """Returns the contents of those images of a Parquet table that have one of the ids."""
    contents = {}
    with ShardReader() as reader:
        for shard in plan_shards([table]):
            for encoded in reader.read(shard):
                if encoded.id in ids:
                    with suppress(UnusableImage):
                        contents[encoded.id] = encoded.read()
    return contents
