"""The study definition: a TOML file whose values can be overridden on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli_w

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.toml_file import read_toml

GIVEN_SPLIT, NESTED_CV = "given-split", "nested-cv"
EVALUATIONS = (GIVEN_SPLIT, NESTED_CV)
"""Designs of an evaluation: the given test split, or each source once in a nested cross-validation."""

MAX_WORKERS = 1000
"""Greatest number of processes that one machine starts for a command."""

CONTROL = "plain"
"""The strategy that only tunes the optimiser. It is always tuned: a remedy is credited with its gain over it."""


@dataclass(frozen=True)
class Range:
    """A narrower range of a numeric parameter; None keeps the declared end."""

    low: float | None = None
    high: float | None = None


Override = str | float | Range | tuple[str, ...]
"""An override of a parameter: a fixed value, a narrower range, or some of its choices."""


@dataclass(frozen=True)
class StudyDefinition:
    """The definition of a study. Its defaults are the demo on the embedded sample, as spelt out in `studies/demo.toml`.

    In TOML, `strategies` is a list of names:

        strategies = ["oversampling", "focal_loss"]

    To fix a parameter of a strategy or to narrow its range, write a table for each strategy instead, in the same order
    and empty where nothing is overridden:

        [strategies.oversampling]
        scheme = ["class", "source"]      # some of the choices

        [strategies.focal_loss]
        gamma = {low = 1.0, high = 3.0}   # a narrower range; either end may be left out
        weights = "none"                  # a fixed value

    A table `[strategies.plain]` does the same for the control. A default outside its narrowed range moves to the
    nearest end, and initial points outside it are skipped. With the option `--strategies`, the tables of the selected
    strategies and of the control stay in effect. Names and ranges are checked against the declared parameters before a
    search begins.
    """

    name: str = "demo"
    """Name of the report folder and of the study in the database."""
    data: str = "synthetic"
    """`synthetic`, `hirise` (the downloaded archive), or a zip, folder or annotation table, which `$VARIABLE` may name;
    `docs/data.md` describes the layouts."""
    dataset: str = "hirise-v3_2"
    """Key in `hirise_imb.data.registry.DATASETS`, which gives the classes and the format of the images of data in the
    official layout; data in other layouts brings its own."""
    backbone: str = "efficientnet-lite0"
    """Key in `hirise_imb.backbones.BACKBONES`."""
    weights: str = "imagenet"
    """`imagenet`, `random`, or a weights file."""
    features: str = ""
    """Parquet file of features that were made elsewhere, which take the place of the backbone with its weights and
    precision (`docs/features-from-anywhere.md`); empty for the features of the backbone."""
    precision: str = "float32"
    """Number format of the backbone's arithmetic: `float32`, or `bfloat16` for a GPU that supports it."""
    images: str = ""
    """Folder that the paths in an annotation table start from; empty for the folder of the table."""
    strategies: tuple[str, ...] = (
        "oversampling",
        "class_weights",
        "focal_loss",
        "logit_adjusted_loss",
        "logit_adjustment",
        "class_bias",
        "prototypes",
        "representation",
        "combined_features",
    )
    """Names of the strategies that are tuned in addition to the control `plain`."""
    overrides: Mapping[str, Mapping[str, Override]] = field(default_factory=dict)
    """Overrides by strategy and parameter; each strategy is also in `strategies`."""
    evaluation: tuple[str, ...] = EVALUATIONS
    """Designs by which arms are evaluated: `given-split` (searches on training and validation, scores on test) and
    `nested-cv` (searches without each of the outer folds of all sources, scores on that fold)."""
    metric: str = "macro_f1"
    """Target metric, which searches maximise, choices follow and tests are of: `macro_f1`, `balanced_accuracy`,
    `g_mean`, `mean_average_precision`, `recall_at_precision:P` with a precision such as 0.9, or `cost`."""
    costs: tuple[str, ...] = ()
    """Costs of mistakes for the metric `cost`: lines `true class, predicted class, cost`, where `*` stands for every
    class and later lines take precedence. Other mistakes cost 1."""
    outer_folds: int = 5
    """Number of outer folds of the nested cross-validation."""
    repeats: int = 1
    """Number of nested cross-validations, each with other outer folds."""
    inner_seeds: int = 1
    """`trial_seeds` of the nested cross-validation, which has a search in every outer fold."""
    trials: int = 2
    """Number of finished trials of each strategy's search; if it has fewer distinct settings, each is tried once."""
    fine_tuning_trials: int = 20
    """Number of finished trials of a strategy that fine-tunes the backbone, where `trials` is more: one of these trials
    takes as long as hundreds of others."""
    trial_seeds: int = 3
    """Number of seeds with which recipes are scored by cross-validation; a validation score is the mean over them."""
    refits: int = 2
    """Number of seeds with which the baseline and each chosen recipe are fitted for the report."""
    seed: int = 0
    """Random seed of the searches; trials and refits use this seed and the integers after it."""

    def __post_init__(self) -> None:
        """Checks every value except names that other rooms define."""
        _check_types(self)
        check_name(self.name)
        for name, (low, high) in _LIMITS.items():
            check_count(name, getattr(self, name), low, high)
        # The seeds of numpy's RandomState, which imbalanced-learn draws from, have 32 bits.
        if self.seed + max(2 * self.trial_seeds, 2 * self.inner_seeds, self.refits * self.repeats) > 2**32:
            raise UserError(
                f"seed is {self.seed}: it and the seeds of trials and refits after it must stay below 2**32."
            )
        for design in self.evaluation:
            check_known("evaluation", design, EVALUATIONS)
        if not self.evaluation:
            raise UserError(f"evaluation is empty: name {' or '.join(EVALUATIONS)}, or both.")
        if len(set(self.evaluation)) < len(self.evaluation):
            raise UserError(f"evaluation contains a name twice: {', '.join(self.evaluation)}.")
        if not self.strategies:
            raise UserError("strategies is empty: name at least one (`hirise-imb strategies` lists them).")
        if len(set(self.strategies)) < len(self.strategies):
            raise UserError(f"strategies contains a name twice: {', '.join(self.strategies)}.")

        changed = [key.name for key in fields(self) if getattr(self, key.name) != key.default]
        _check_no_backbone(self.features, [key for key in _BACKBONE_KEYS if key in changed])
        for name in self.overrides:
            if name not in self.strategies:
                raise UserError(f"overrides are given for {name}, which is not in strategies: add it there.")

    def to_toml(self) -> str:
        """Returns the text of a TOML file that `load_definition` reads back as this definition."""
        values = asdict(self)
        values |= {key: list(values[key]) for key in ("strategies", "evaluation", "costs")}
        unused = (*(_BACKBONE_KEYS if self.features else ()), *(() if self.costs else ("costs",)))
        for key in ("overrides", *unused):
            del values[key]
        if any(self.overrides.values()):
            tables = {name: self.overrides.get(name, {}) for name in self.strategies}
            values["strategies"] = {
                name: {parameter: _plain(override) for parameter, override in table.items()}
                for name, table in tables.items()
            }
        return tomli_w.dumps(values)


_LIMITS: Mapping[str, tuple[int, int | None]] = {
    "trials": (1, 10**6),
    "fine_tuning_trials": (1, 10**6),
    "trial_seeds": (1, 1000),
    "inner_seeds": (1, 1000),
    "outer_folds": (2, 1000),
    "repeats": (1, 1000),
    "refits": (1, 1000),
    "seed": (0, None),
}
"""Least and greatest value of each number. A study with the greatest ones would not end, but it can be planned."""

_BACKBONE_KEYS = ("backbone", "weights", "precision")
"""Keys without a meaning where features come from a table."""


def _check_no_backbone(features: object, keys: Sequence[str]) -> None:
    """Checks that a table of features is not combined with keys that describe a backbone."""
    if features and keys:
        raise UserError(
            f"features is {features}, a table that takes the place of the backbone, but {' and '.join(keys)} "
            f"{'is' if len(keys) == 1 else 'are'} given too: leave out either."
        )


def format_override(override: Override) -> str:
    """Returns an override as it is written in TOML, on one line."""
    plain = _plain(override)
    if isinstance(plain, dict):
        return f"{{{', '.join(f'{key} = {_literal(value)}' for key, value in plain.items())}}}"
    return _literal(plain)


def _plain(override: Override) -> object:
    """Returns an override as TOML's own types."""
    if isinstance(override, Range):
        return {key: value for key, value in asdict(override).items() if value is not None}
    return list(override) if isinstance(override, tuple) else override


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def check_name(name: str) -> None:
    """Checks that a name can be the name of a report's folder.

    Raises:
        UserError: it can't, or it is the file name of the list of reports in the same folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "index.html":
        raise UserError(f"The name {name!r} can't name a folder: use up to 100 letters, digits, '.', '_' and '-'.")


def check_count(name: str, value: int, low: int, high: int | None) -> None:
    """Checks a number that the user gives.

    Raises:
        UserError: it is below `low` or above `high`.
    """
    if value < low:
        raise UserError(f"{name} is {value}: use {low} or more.")
    if high is not None and value > high:
        raise UserError(f"{name} is {value}: use {high:,} or less.")


def check_known(kind: str, name: str, names: Collection[str]) -> str:
    """Returns `name` if it is one of `names`.

    Raises:
        UserError: it is not; the message suggests the nearest name and lists all of them.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    hint = f": did you mean {near[0]}?" if near else "."
    raise UserError(f"There is no {kind} {name!r}{hint} Known: {', '.join(names)}.")


def load_definition(path: Path, options: Mapping[str, Any]) -> StudyDefinition:
    """Reads a definition from a file; `options` take precedence over its keys.

    The option `strategies` selects names; the file's tables for these and for the control stay in effect.

    Raises:
        UserError: the file can't be read, or a key or value is wrong.
    """
    return _definition({"name": _name_of(path)} | _read(path), options)


def default_definition(options: Mapping[str, Any]) -> StudyDefinition:
    """Returns the demo with `options` in place of its defaults, named after other data and a table of features."""
    return build_definition({}, options)


def build_definition(keys: Mapping[str, Any], options: Mapping[str, Any]) -> StudyDefinition:
    """Returns the definition with these keys; `options` take precedence over them, as over those of a file.

    Without a name, it is named after its data and its table of features.

    Raises:
        UserError: a key or value is wrong.
    """
    both = {**keys, **options}
    data, features = both.get("data", StudyDefinition.data), both.get("features", "")
    name = StudyDefinition.name if data == StudyDefinition.data else _name_of(Path(str(data)))
    return _definition({"name": f"{name}-{_name_of(Path(str(features)))}" if features else name, **keys}, options)


def _name_of(path: Path) -> str:
    """Returns the name of a study that is named after the file of its definition or data."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "study"


def _definition(file: Mapping[str, Any], options: Mapping[str, Any]) -> StudyDefinition:
    for given in (file, options):
        _check_no_backbone(given.get("features"), [key for key in _BACKBONE_KEYS if key in given])
    # An option that says where features come from takes the place of what the file says about it.
    replaced = _BACKBONE_KEYS if options.get("features") else ("features",) if "backbone" in options else ()
    values: dict[str, Any] = {**{key: value for key, value in file.items() if key not in replaced}, **options}
    keys = [field.name for field in fields(StudyDefinition) if field.name != "overrides"]
    for key in values:
        check_known("key", key, keys)
    tables = file.get("strategies")
    if isinstance(tables, dict):
        if "strategies" not in options:
            values["strategies"] = list(tables)
        elif tables.get(CONTROL) and CONTROL not in options["strategies"]:
            values["strategies"] = [CONTROL, *options["strategies"]]
        values["overrides"] = {
            name: _overrides(name, table)
            for name, table in tables.items()
            if name in values["strategies"] and table != {}
        }
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return StudyDefinition(**arguments)


def _overrides(name: str, table: object) -> dict[str, Override]:
    """Returns the overrides in a strategy's table; whether the strategy has such parameters is not known here."""
    if not isinstance(table, dict):
        raise UserError(f"strategies.{name} is {table!r}: it must be a table of parameters, which may be empty.")
    return {parameter: _override(f"strategies.{name}.{parameter}", value) for parameter, value in table.items()}


def _override(key: str, value: object) -> Override:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    if isinstance(value, dict) and value and value.keys() <= {"low", "high"}:
        ends = value.values()
        if all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            return Range(**value)
    raise UserError(
        f"{key} is {_literal(value) if not isinstance(value, dict) else 'another table'}: give a number or a string to "
        f"fix it, a table with the numbers low and high to narrow it, or a list of strings to keep only these choices."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError as error:
        examples = sorted(map(str, Path("studies").glob("*.toml")))
        hint = f"; there are {', '.join(examples)}" if examples else ""
        raise UserError(f"There is no study definition {path}{hint}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a study definition, a TOML file.") from error


def _check_types(definition: StudyDefinition) -> None:
    descriptions = {str: "a string", int: "an integer", tuple: "a list of strings"}
    for key in fields(definition):
        if key.name == "overrides":  # `_override` has checked what comes from a file
            continue
        value, expected_type = getattr(definition, key.name), type(key.default)
        is_valid = isinstance(value, expected_type) and not isinstance(value, bool)
        if is_valid and isinstance(value, tuple):
            is_valid = all(isinstance(entry, str) for entry in value)
        # Python decodes bytes on the command line that are not UTF-8 as halves of surrogates, which no file can store.
        if isinstance(value, str) and value.encode(errors="replace").decode() != value:
            raise UserError(f"{key.name} is {value!r}, which has bytes that are not UTF-8: rename the file or folder.")
        if not is_valid:
            text = _literal(list(value) if isinstance(value, tuple) else value)
            raise UserError(f"{key.name} is {text}: it must be {descriptions[expected_type]}.")
