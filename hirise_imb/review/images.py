"""Reads the image files of predictions again, by the ids under which they were predicted."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from hirise_imb.data import HIRISE
from hirise_imb.data.archive import DAMAGE
from hirise_imb.prediction.inputs import ID, IMAGE, ImageFile, list_inputs
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
            contents |= _read_rows(image.path, ids)
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
    by_path: dict[str, list[tuple[str, ImageFile]]] = defaultdict(list)
    for id_, images in files.items():
        for image in images:
            by_path[image.path if image.member else ""].append((id_, image))
    contents: dict[str, bytes] = {}
    different = {}
    for path, images_of_path in by_path.items():
        for (id_, _), content in zip(images_of_path, _read(path, images_of_path), strict=True):
            if contents.setdefault(id_, content) != content:
                different[id_] = f"{id_}: {', '.join(each.id for each in files[id_])}"
    if different:
        raise UserError(
            f"{len(different)} images can't be told from others of the same name; name only their folders with "
            f"--images:{bullet_list(list(different.values()), _MAX_SHOWN)}"
        )
    return contents


def _read(zip_path: str, images: Sequence[tuple[str, ImageFile]]) -> list[bytes]:
    """Returns the contents of files, or of members of one zip."""
    if not zip_path:
        return [Path(image.path).read_bytes() for _, image in images]
    try:
        with zipfile.ZipFile(zip_path) as archive:
            return [archive.read(image.member) for _, image in images]
    except (OSError, *DAMAGE) as error:
        raise UserError(f"{zip_path} is damaged or not a zip file ({error}): copy or download it again.") from error


def _read_rows(path: str, ids: Collection[str]) -> dict[str, bytes]:
    """Returns the contents of those images of a Parquet table that have one of the ids."""
    import pyarrow.parquet as pq

    wanted, contents = set(ids), {}
    with pq.ParquetFile(path) as file:
        if ID not in file.schema_arrow.names:
            return {}
        for batch in file.iter_batches(batch_size=1024, columns=[ID, IMAGE]):
            for id_, image in zip(batch[ID].cast("string").to_pylist(), batch[IMAGE], strict=True):
                if id_ in wanted and image.as_py() is not None:
                    value = image.as_py()
                    contents[id_] = value["bytes"] if isinstance(value, dict) else value
    return contents
