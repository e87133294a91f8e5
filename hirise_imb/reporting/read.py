"""Reads a report from its folder, which contains everything needed to write the report again or compare it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from hirise_imb.data.dataset import SPLITS, ClassSet
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.targets import find_target
from hirise_imb.reporting.records import Arm, Omitted, Origin, Role, Selection
from hirise_imb.reporting.report_files import AGAIN, InconsistentReport, ReportFiles, lock_report
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.stored_predictions import IDENTITY, read_predictions
from hirise_imb.reporting.summary.consistency import find_contradiction
from hirise_imb.reporting.summary.records import ArmRecord, Summary
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.reporting.tables import probability_columns
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file
from hirise_imb.utils.strict_json import parse_json
from hirise_imb.utils.toml_file import parse_toml

_PREDICTIONS = "predictions/{}.parquet"
_CURVES = "figures/curves-{}.csv"
"""Files of an arm; the name of the arm replaces the braces."""


def read_summary(folder: Path) -> Summary:
    """Reads and checks the `summary.json` of a report.

    Raises:
        UserError: the file is missing, can't be read, or violates its schema.
    """
    path = folder / "summary.json"
    check_regular_file(path)
    try:
        summary: Summary = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"There is no report in {folder}: name a folder that contains summary.json.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): make it readable, or {AGAIN}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): {AGAIN}.") from error
    if (fault := find_fault(summary)) is not None:
        raise UserError(f"{path} is not a summary that this program can read ({fault}): {AGAIN}.")
    return summary


def read_report(folder: Path) -> Results:
    """Reads the results that a report was made from, with those of the given split inside it.

    While another process replaces the report, its files do not belong together; then this waits for that process, and
    reads again.

    Raises:
        UserError: a file is missing, differs from the one that was written with the report, has content that no study
            can have written, or contradicts another.
    """
    try:
        return _read(folder)
    except InconsistentReport:
        with lock_report(folder):
            return _read(folder)


def _read(folder: Path) -> Results:
    summary = read_summary(folder)
    files = ReportFiles(folder, summary["files"])
    environment = _read_environment(files)
    classes = _class_set(summary)
    tables = {arm["name"]: _predictions(files, arm, classes, sum(summary["support"])) for arm in summary["arms"]}
    test = next(iter(tables.values()))[0][IDENTITY].reset_index(drop=True)
    for name, fits in tables.items():
        if not all(fit[IDENTITY].reset_index(drop=True).equals(test) for fit in fits):
            raise UserError(
                f"{folder}: the predictions of {name} are not for the test landmarks of the report: {AGAIN}."
            )
    test["label"] = [classes.names.index(name) for name in test.pop("true_class")]
    seconds = environment.get("seconds", {})
    results = Results(
        name=summary["study"],
        setting=summary["setting"],
        study_toml=_read_definition(files),
        classes=classes,
        test=test,
        data=pd.DataFrame(summary["data"]),
        arms=tuple(
            _arm(files, arm, tables[arm["name"]], probability_columns(classes), seconds.get(arm["name"], 0.0))
            for arm in summary["arms"]
        ),
        environment=environment,
        omitted=tuple(Omitted(**strategy) for strategy in summary["omitted"]),
        trial_seeds=summary["trial_seeds"],
        outer_folds=_outer_folds(files, summary, test),
        given_split=_read_given_split(folder, summary),
        target=find_target(summary["metric"]["name"], summary["metric"]["costs"], classes.names),
        costs=tuple(summary["metric"]["costs"]),
        appendix={key: summary.get(key, []) for key in ("strategies", "shared_parameters")},
        origins=tuple(
            Origin(o["name"], o["study"], o["setting"], tuple(o["arms"]), o["chosen"]) for o in summary["origins"]
        ),
    )
    if (place := find_contradiction(summary, results)) is not None:
        raise InconsistentReport(
            f"{folder / 'summary.json'} contradicts the predictions of the report ({place}): {AGAIN}."
        )
    return results


def _read_environment(files: ReportFiles) -> dict[str, Any]:
    """Reads versions, hardware, digests and wall times.

    Raises:
        UserError: they are not an object, or the times are not numbers.
    """
    name = "environment.json"
    try:
        environment = parse_json(files.read(name))
    except ValueError as error:
        raise files.refuse(name, error) from error
    if not isinstance(environment, dict):
        raise files.refuse(name, "it is not an object")
    seconds = environment.get("seconds", {})
    if not isinstance(seconds, dict) or not all(
        type(value) in (int, float) and value >= 0 for value in seconds.values()
    ):
        raise files.refuse(name, "its seconds are not times")
    return environment


def _read_definition(files: ReportFiles) -> str:
    """Reads the definition of the study, or those of the reports of a comparison, as TOML.

    Raises:
        UserError: they are not TOML.
    """
    name = "study.toml"
    try:
        content = files.read(name)
        parse_toml(content)
    except ValueError as error:
        raise files.refuse(name, error) from error
    return content.decode("utf-8")


def _outer_folds(files: ReportFiles, summary: Summary, test: pd.DataFrame) -> pd.DataFrame | None:
    """Returns the outer folds of a nested cross-validation, None for the given split.

    Raises:
        UserError: they are not a fold for each tested source in each repeat.
    """
    if summary["outer_folds"] is None:
        return None
    folds = pd.DataFrame(summary["outer_folds"], columns=["repeat", "fold", "source"])
    sources = sorted(test["source"].unique())
    repeats = [(repeat, sorted(group["source"])) for repeat, group in folds.groupby("repeat")]
    if not repeats or repeats != [(number, sources) for number in range(1, len(repeats) + 1)]:
        raise files.refuse("summary.json", "$.outer_folds has not each source once in each repeat")
    return folds


def _read_given_split(folder: Path, summary: Summary) -> Results | None:
    """Reads the report of the given split inside that of a nested cross-validation; None without one.

    Its files are checked against its own summary. The two reports are written one after the other, so digests of one in
    the other would make both unreadable if writing them again is interrupted between the two.

    Raises:
        UserError: it can't be read, or is not the report of the given split of this study.
    """
    if summary["given_split"] is None:
        return None
    place = folder / summary["given_split"]["folder"]
    given = read_report(place)
    if given.outer_folds is not None or (given.name, given.classes) != (summary["study"], _class_set(summary)):
        raise UserError(f"{place} is not the report of the given split of {summary['study']}: {AGAIN}.")
    return given


def _class_set(summary: Summary) -> ClassSet:
    return ClassSet(tuple(summary["classes"]), summary["majority"])


def list_inputs(folder: Path) -> frozenset[str]:
    """Lists the files that a report is read from in addition to its summary, with those of the given split inside it.

    Raises:
        UserError: a summary can't be read.
    """
    summary = read_summary(folder)
    names = {"study.toml", "environment.json"}
    for arm in summary["arms"]:
        names.add(_PREDICTIONS.format(arm["name"]))
        if arm["has_epochs"]:
            names.add(_CURVES.format(_owner_of_curves(arm)))
    if (given := summary["given_split"]) is not None:
        names |= {f"{given['folder']}/{name}" for name in list_inputs(folder / given["folder"])}
    return frozenset(names)


def _predictions(files: ReportFiles, arm: ArmRecord, classes: ClassSet, n_landmarks: int) -> list[pd.DataFrame]:
    """Reads the predictions of an arm, one table for each seed."""
    name = _PREDICTIONS.format(arm["name"])
    try:
        return read_predictions(files.read(name), classes, arm["seeds"], n_landmarks)
    except ValueError as error:
        raise files.refuse(name, error) from error


def _arm(
    files: ReportFiles, stored: ArmRecord, fits: list[pd.DataFrame], probabilities: list[str], seconds: float
) -> Arm:
    return Arm(
        name=stored["name"],
        role=cast("Role", stored["role"]),
        summary=stored["summary"],
        selections=tuple(
            Selection(
                division=selection["division"],
                recipe=selection["recipe"],
                settings=selection["settings"],
                val_score=selection["val_score"],
                trials=selection["trials"],
                members=members,
                space=cast("dict[str, dict[str, Any]]", selection.get("space", {})),
            )
            for selection, members in zip(stored["selections"], stored["members"], strict=True)
        ),
        seeds=tuple(stored["seeds"]),
        predictions=tuple(
            Predictions(tuple(fit["image"]), np.ascontiguousarray(fit[probabilities], np.float32)) for fit in fits
        ),
        histories=_histories(files, stored),
        best_epochs=tuple(map(tuple, stored["best_epochs"])),
        capped=tuple(map(tuple, stored["capped"])),
        temperatures=tuple(map(tuple, stored["temperatures"])),
        seconds=seconds,
        notes=tuple(stored["notes"]),
    )


def _histories(files: ReportFiles, stored: ArmRecord) -> tuple[pd.DataFrame, ...]:
    if not stored["has_epochs"]:
        return tuple(pd.DataFrame() for _ in stored["seeds"])
    name = _CURVES.format(_owner_of_curves(stored))
    try:
        table = pd.read_csv(BytesIO(files.read(name)))
    except ValueError as error:
        raise files.refuse(name, error) from error
    has_columns = {"seed", "epoch"} <= {*table} and any(f"{split}_loss" in table for split in SPLITS)
    if not has_columns or not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
        raise files.refuse(name, "its columns are not those of learning curves")
    if np.isinf(table.to_numpy(np.float64)).any():  # a diverging fit is not stored
        raise files.refuse(name, "it has infinite values")
    if not set(stored["seeds"]) <= set(table["seed"]):
        raise files.refuse(name, "it has no epochs of a seed")
    return tuple(table[table["seed"] == seed].drop(columns="seed").reset_index(drop=True) for seed in stored["seeds"])


def _owner_of_curves(arm: ArmRecord) -> str:
    """Returns the name of the arm whose file has the learning curves of this one: arms that share fits share it."""
    return arm.get("curves", arm["name"])
