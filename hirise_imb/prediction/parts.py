"""The finished shards of a prediction, in a folder next to its output, until all of them are joined."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.prediction.shards import Shard
from hirise_imb.prediction.table import PredictionFacts, open_writer, read_batches, read_facts
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, write_atomically, write_text
from hirise_imb.utils.parquet import parquet_errors

if TYPE_CHECKING:
    import pyarrow as pa

_FACTS = "run.json"
"""Name of the file with what the shards depend on."""
_JOINED = "joined"
"""Name of the file in which shards are joined; without a suffix, since it is not a shard."""
_GROUP = 16
"""Shards in a row group of the output: the more, the smaller is its index."""


@dataclass
class Totals:
    """Counts of the rows of a file of predictions."""

    images: int = 0
    errors: int = 0
    """Number of images that can't be used."""
    first_error: str = ""
    """Name of the first of them, and the sentence why; empty if there is none."""
    predicted: Counter[str] = field(default_factory=Counter)
    """Number of images predicted as each class."""
    shown: Counter[str] = field(default_factory=Counter)
    """Number of them whose confidence reaches the threshold."""


class Parts:
    """The finished shards of one prediction."""

    def __init__(self, out: Path, facts: PredictionFacts) -> None:
        """Names the folder of the shards of an output; `open_folder` creates it."""
        self.out = out
        self.facts = facts
        self.folder = out.with_name(f"{out.name}.parts")

    def is_complete(self) -> bool:
        """Returns whether the output exists already.

        Raises:
            UserError: it exists, but has other predictions.
        """
        if not self.out.exists():
            return False
        try:
            facts = read_facts(self.out)
        except UserError as error:
            raise UserError(
                f"{self.out} exists and is not a file of predictions: choose another --out, or delete it."
            ) from error
        if difference := _difference(facts, self.facts):
            raise UserError(f"{self.out} has predictions {difference}: choose another --out, or delete it.")
        return True

    def open_folder(self) -> None:
        """Creates the folder, or checks that its shards belong to this prediction.

        Raises:
            UserError: they belong to another one, or the folder can't be written to.
        """
        advice = "delete this folder, or choose another --out"
        path = self.folder / _FACTS
        if path.exists():
            try:
                facts = PredictionFacts.from_json(path.read_bytes())
            except ValueError as error:
                raise UserError(f"{path} is damaged or of another version: {advice}.") from error
            if difference := _difference(facts, self.facts):
                raise UserError(f"{self.folder} has unfinished predictions {difference}: {advice}.")
        elif self.folder.is_dir() and any(not inside.name.startswith(".") for inside in self.folder.iterdir()):
            raise UserError(f"{self.folder} exists and has files of something else: {advice}.")
        ensure_folder(self.folder)
        if not path.exists():
            write_atomically(path, lambda part: write_text(part, self.facts.to_json()))

    def path(self, number: int) -> Path:
        """Returns the path of a finished shard."""
        return self.folder / f"{number:07}.parquet"

    def has(self, shard: Shard) -> bool:
        """Returns whether a shard is finished: a file that is incomplete or damaged does not count."""
        path = self.path(shard.number)
        try:
            # The metadata tell the columns, which a damaged shard may name otherwise.
            is_whole = path.exists() and read_facts(path) == self.facts
            return is_whole and sum(map(len, read_batches(path, self.facts))) == len(shard)
        except UserError:
            return False

    def write(self, shard: Shard, table: pa.Table) -> None:
        """Writes the predictions of a shard."""

        def write(part: Path) -> None:
            with open_writer(part, self.facts) as writer:
                writer.write_table(table)

        write_atomically(self.path(shard.number), write)

    def join(self, shards: int) -> Totals:
        """Joins all shards in their order into the output, and removes the folder.

        Raises:
            UserError: no image could be used, or a shard was damaged meanwhile; there is no output then.
        """
        import pyarrow as pa

        joined = self.folder / _JOINED
        with open_writer(joined, self.facts) as writer:
            for start in range(0, shards, _GROUP):
                paths = [self.path(number) for number in range(start, min(start + _GROUP, shards))]
                table = pa.concat_tables([_read_shard(path) for path in paths])
                writer.write_table(table, row_group_size=len(table))
        totals = count_rows(joined)
        if totals.errors < totals.images:
            with joined.open("rb") as file:
                os.fsync(file.fileno())  # the shards are removed next
            joined.replace(self.out)
        self.remove()
        if totals.errors == totals.images:
            count = f"None of the {totals.images:,} images can" if totals.images > 1 else "The only image can't"
            raise UserError(f"{count} be used: {totals.first_error}")
        return totals

    def remove(self) -> None:
        """Removes the folder, if there is one, and what is left of it if that was interrupted before."""
        removed = self.folder.with_name(f".{self.folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if self.folder.exists():
            # Renamed first: a folder without some of its files would be taken for something else.
            self.folder.replace(removed)
            shutil.rmtree(removed, ignore_errors=True)


def _read_shard(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except parquet_errors(OSError) as error:
        raise UserError(
            f"{path} was damaged after it was written: run the command again, and its images are predicted again."
        ) from error


def _difference(existing: PredictionFacts, wanted: PredictionFacts) -> str:
    """Returns how existing predictions differ from those that are wanted, such as `by another model`."""
    if existing.model != wanted.model:
        return f"by another model ({existing.model_name})"
    if existing.fingerprint != wanted.fingerprint or existing.input != wanted.input:
        return "of other images, or of images that have changed since"
    if existing.threshold != wanted.threshold:
        return f"with another threshold ({existing.threshold:g})"
    return ""


def count_rows(path: Path) -> Totals:
    """Counts the rows of a file of predictions by class."""
    totals = Totals()
    for batch in read_batches(path, read_facts(path), ["id", "class", "shown", "error"]):
        totals.images += len(batch)
        used = batch[batch["error"].isna()]
        totals.predicted.update(used["class"])
        totals.shown.update(used.loc[used["shown"].astype(bool), "class"])
        if len(used) < len(batch):
            first = batch[batch["error"].notna()].iloc[0]
            totals.errors += len(batch) - len(used)
            totals.first_error = totals.first_error or f"{first['id']}: {first['error']}"
    return totals
