"""What a study is to do: a TOML file, with options of the command line before it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from hirise_imb.utils.errors import UserError


@dataclass(frozen=True)
class StudyDefinition:
    """A study; the defaults are the demo on the embedded sample, which `studies/demo.toml` spells out."""

    name: str = "demo"
    """Of the report folder and the database."""
    data: str = "synthetic"
    """`synthetic`, `hirise` (the downloaded archive), a zip or folder in the official layout, or `$VARIABLE`."""
    dataset: str = "hirise-v3_2"
    """Name of the data set that the data belongs to."""
    backbone: str = "efficientnet-lite0"
    weights: str = "imagenet"
    """`imagenet`, `random`, or a weights file."""
    precision: str = "float32"
    """Of the backbone's arithmetic: `float32`, or `bfloat16` for a GPU that has it."""
    strategies: tuple[str, ...] = (
        "oversampling",
        "class_weights",
        "focal_loss",
        "logit_adjusted_loss",
        "partial_unfreeze",
        "logit_adjustment",
        "class_bias",
        "prototypes",
    )
    """Beside the control `plain`, which is always searched."""
    selection: str = "grouped-cv"
    """How recipes are chosen: `grouped-cv`, by folds over the sources of training and validation, for strategies that
    train no layer of the backbone, and by the given validation split for others; `val`, by that split for all."""
    trials: int = 2
    """Finished trials each strategy's search comes to."""
    refits: int = 2
    """Seeds with which the baseline and each chosen recipe are fitted for the report."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value, so that a definition that exists can be run as far as its own words go."""
        _check_types(self)
        check_name(self.name)
        for what, least in (("trials", 1), ("refits", 1), ("seed", 0)):
            if getattr(self, what) < least:
                raise UserError(f"{what} is {getattr(self, what)}: use {least} or more.")
        if self.seed + self.refits > 2**32:
            raise UserError(f"seed is {self.seed}: it and the seeds of the refits after it must stay below 2**32.")
        check_known("selection", self.selection, ("grouped-cv", "val"))
        if not self.strategies:
            raise UserError("strategies is empty: name at least one (`study strategies` lists them).")
        if len(set(self.strategies)) < len(self.strategies):
            raise UserError(f"strategies names one twice: {', '.join(self.strategies)}.")

    def to_toml(self) -> str:
        """The definition as a TOML file."""
        return tomli_w.dumps(asdict(self))


def check_name(name: str) -> None:
    """See that a name can be that of a report's folder.

    Raises:
        UserError: it can't, or is that of the list of reports beside it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "index.html":
        raise UserError(f"The name {name!r} can't name a folder: use up to 100 letters, digits, '.', '_' and '-'.")


def check_known(kind: str, name: str, names: Collection[str]) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        UserError: it is not; the sentence gives the nearest name and all of them.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    hint = f": did you mean {near[0]}?" if near else "."
    raise UserError(f"There is no {kind} {name!r}{hint} Known: {', '.join(names)}.")


def load_definition(path: Path, options: Mapping[str, Any]) -> StudyDefinition:
    """Read a definition; each of `options` replaces what the file says.

    Raises:
        UserError: the file can't be read, or a key or value is wrong.
    """
    return _definition({"name": _name_of(path)} | _read(path) | dict(options))


def default_definition(options: Mapping[str, Any]) -> StudyDefinition:
    """The demo, with `options` in place of its own values; other data gives it another name."""
    data = options.get("data", StudyDefinition.data)
    name = StudyDefinition.name if data == StudyDefinition.data else _name_of(Path(str(data)))
    return _definition({"name": name} | dict(options))


def _name_of(path: Path) -> str:
    """A study's name from that of its definition or data."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "study"


def _definition(values: Mapping[str, Any]) -> StudyDefinition:
    keys = [field.name for field in fields(StudyDefinition)]
    for key in values:
        check_known("key", key, keys)
    ready: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return StudyDefinition(**ready)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        beside = sorted(str(found) for found in Path("studies").glob("*.toml"))
        there = f"; there are {', '.join(beside)}" if beside else ""
        raise UserError(f"There is no study definition {path}{there}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a study definition, a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid TOML: {error}.") from error


def _check_types(definition: StudyDefinition) -> None:
    for field in fields(definition):
        value = getattr(definition, field.name)
        wanted = type(field.default)
        right = isinstance(value, wanted) and not isinstance(value, bool)
        if right and isinstance(value, tuple):
            right = all(isinstance(entry, str) for entry in value)
        if not right:
            words = {str: "a text", int: "a whole number", tuple: "a list of texts"}[wanted]
            raise UserError(f"{field.name} is {value!r}: it must be {words}.")
