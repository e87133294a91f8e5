"""Small data sets drawn from noise, written in each of the layouts."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hirise_imb.data.dataset import SPLITS

ROCKS = ("bedrock", "dust", "float rock")
"""Names of the three classes of a data set in colour."""
LETTERS = tuple(f"unit {letter}" for letter in "abcdefghijklmno")
"""Names of the fifteen classes of a grey data set."""


@dataclass(frozen=True)
class Picture:
    """One labelled image."""

    content: bytes
    suffix: str
    label: int
    split: str
    source: str
    number: int

    @property
    def name(self) -> str:
        """A name that no other picture has."""
        return f"{self.split}-{self.number:03}{self.suffix}"


def draw(names: Sequence[str], counts: Sequence[int], *, colour: bool, suffix: str, n_sources: int) -> list[Picture]:
    """Draws pictures of 64 x 64 pixels: each class has a brightness of its own, in each channel, and each source too.

    Args:
        names: names of the classes.
        counts: number of pictures of each class in each split.
        colour: whether they have three channels.
        suffix: `.jpg` or `.png`.
        n_sources: number of sources in each split; the pictures of a class take them in turn.
    """
    rng = np.random.default_rng(0)
    channels = 3 if colour else 1
    means = rng.uniform(40, 215, (len(names), channels))
    pictures: list[Picture] = []
    for split in SPLITS:
        shifts = rng.normal(0, 8, n_sources)
        for label, count in enumerate(counts):
            for turn in range(count):
                source = (turn + label) % n_sources
                pixels = means[label] + shifts[source] + rng.normal(0, 25, (64, 64, channels))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze())
                pictures.append(
                    Picture(encode(image, suffix), suffix, label, split, f"{split}-{source}", len(pictures))
                )
    return pictures


def encode(image: Image.Image, suffix: str) -> bytes:
    """The content of an image file."""
    with io.BytesIO() as buffer:
        image.save(buffer, {".jpg": "JPEG", ".png": "PNG"}[suffix])
        return buffer.getvalue()


def blank(size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    """A PNG without content."""
    return encode(Image.new(mode, size), ".png")


def rocks() -> list[Picture]:
    """Three classes in colour, the second of which dominates; from 4 sources a split."""
    return draw(ROCKS, (8, 24, 8), colour=True, suffix=".jpg", n_sources=4)


def letters() -> list[Picture]:
    """Fifteen classes in grey of the same size; from 5 sources a split."""
    return draw(LETTERS, (5,) * 15, colour=False, suffix=".png", n_sources=5)


def table_of(pictures: Sequence[Picture], names: Sequence[str], *, sources: bool = True) -> pd.DataFrame:
    """The annotation table of pictures that are in the folder `images`."""
    table = pd.DataFrame(
        {
            "file": [f"images/{picture.name}" for picture in pictures],
            "label": [names[picture.label] for picture in pictures],
            "split": [picture.split for picture in pictures],
            "source": [picture.source for picture in pictures],
        }
    )
    return table if sources else table.drop(columns="source")


def write_images(folder: Path, pictures: Sequence[Picture]) -> Path:
    """Writes the files of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.content)
    return folder


def write_csv(folder: Path, pictures: Sequence[Picture], names: Sequence[str], *, sources: bool = True) -> Path:
    """Writes images and a CSV table; returns the table."""
    write_images(folder / "images", pictures)
    table_of(pictures, names, sources=sources).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def write_parquet(folder: Path, pictures: Sequence[Picture], names: Sequence[str], *, sources: bool = True) -> Path:
    """Writes images and a parquet table; returns the folder."""
    write_images(folder / "images", pictures)
    table_of(pictures, names, sources=sources).to_parquet(folder / "labels.parquet")
    return folder


def write_mars_bench(folder: Path, pictures: Sequence[Picture], names: Sequence[str]) -> Path:
    """Writes the layout of Mars-Bench on Zenodo; returns the folder."""
    rows = []
    for picture in pictures:
        name = names[picture.label]
        place = folder / "data" / picture.split / name
        place.mkdir(parents=True, exist_ok=True)
        (place / picture.name).write_bytes(picture.content)
        rows.append((picture.name, picture.split, picture.label, name))
    table = pd.DataFrame(rows, columns=["file_id", "split", "label", "feature_name"])
    table.to_csv(folder / "annotation.csv", index=False)
    (folder / "mapping.json").write_text(json.dumps({str(k): name for k, name in enumerate(names)}))
    return folder


def write_shards(folder: Path, pictures: Sequence[Picture], names: Sequence[str] | None, n_train: int = 2) -> Path:
    """Writes the layout of Mars-Bench on Hugging Face, training in several shards; returns the folder above them."""
    (folder / "data").mkdir(parents=True)
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        schema = schema.with_metadata({"huggingface": json.dumps(info)})
    for split in SPLITS:
        of_split = [picture for picture in pictures if picture.split == split]
        n_shards = n_train if split == "train" else 1
        for shard in range(n_shards):
            rows = [
                {"image": {"bytes": picture.content, "path": picture.name}, "label": picture.label}
                for picture in of_split[shard::n_shards]
            ]
            name = "validation" if split == "val" else split
            path = folder / "data" / f"{name}-{shard:05}-of-{n_shards:05}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return folder


def zipped(folder: Path) -> Path:
    """A zip with the content of a folder, in a folder of its own."""
    return Path(shutil.make_archive(str(folder.with_name(f"{folder.name}-zip")), "zip", folder.parent, folder.name))


def relabel(pictures: Sequence[Picture], split: str, source: str) -> list[Picture]:
    """The pictures of a split with another source."""
    return [replace(picture, source=source) if picture.split == split else picture for picture in pictures]
