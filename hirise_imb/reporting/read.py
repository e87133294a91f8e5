"""Reads a report from its folder, which contains everything needed to write the report again or compare it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.targets import find_target
from hirise_imb.reporting.records import Arm, Omitted, Origin, Role, Selection
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.records import ArmRecord, Summary
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.reporting.tables import probability_columns
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file

_AGAIN = "run its study again to rewrite it"
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
        summary: Summary = json.loads(path.read_text(encoding="utf-8"), parse_constant=_reject_constant)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"There is no report in {folder}: name a folder that contains summary.json.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): make it readable, or {_AGAIN}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): {_AGAIN}.") from error
    if (fault := find_fault(summary)) is not None:
        raise UserError(f"{path} is not a summary that this program can read ({fault}): {_AGAIN}.")
    return summary


def _reject_constant(name: str) -> float:
    """Refuses NaN and infinities, which Python accepts in JSON although the standard does not."""
    raise ValueError(f"{name} is not a number")


def read_report(folder: Path) -> Results:
    """Reads the results that a report was made from, with those of the given split inside it.

    Raises:
        UserError: a file is missing, or differs from the one that was written with the report.
    """
    summary = read_summary(folder)
    files = _ReportFiles(folder, summary["files"])
    environment = json.loads(files.text("environment.json"))
    tables = {arm["name"]: _predictions(files, arm) for arm in summary["arms"]}
    identity = ["image", "landmark", "source", "true_class"]
    test = next(iter(tables.values()))[0][identity].reset_index(drop=True)
    for name, fits in tables.items():
        if not all(fit[identity].reset_index(drop=True).equals(test) for fit in fits):
            raise UserError(
                f"{folder}: the predictions of {name} are not for the test landmarks of the report: {_AGAIN}."
            )
    classes = _class_set(summary)
    test["label"] = [classes.names.index(name) for name in test.pop("true_class")]
    seconds = environment.get("seconds", {})
    return Results(
        name=summary["study"],
        setting=summary["setting"],
        study_toml=files.text("study.toml"),
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
        outer_folds=None if summary["outer_folds"] is None else pd.DataFrame(summary["outer_folds"]),
        given_split=_read_given_split(folder, summary),
        target=find_target(summary["metric"]["name"], summary["metric"]["costs"], classes.names),
        costs=tuple(summary["metric"]["costs"]),
        appendix={key: summary.get(key, []) for key in ("strategies", "shared_parameters")},
        origins=tuple(
            Origin(o["name"], o["study"], o["setting"], tuple(o["arms"]), o["chosen"]) for o in summary["origins"]
        ),
    )


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
        raise UserError(f"{place} is not the report of the given split of {summary['study']}: {_AGAIN}.")
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


class _ReportFiles:
    """The files of a report, checked against the digests in its summary.

    Scores are computed again from these files, so a file that was edited would contradict the page without notice.
    """

    def __init__(self, folder: Path, digests: dict[str, str]) -> None:
        self.folder, self.digests = folder, digests

    def path(self, name: str) -> Path:
        path = self.folder / name
        check_regular_file(path)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(f"{path} is missing: restore it, or {_AGAIN}.") from error
        if digest != self.digests.get(name):
            raise UserError(f"{path} is not the file that was written with the report: restore it, or {_AGAIN}.")
        return path

    def text(self, name: str) -> str:
        return self.path(name).read_text(encoding="utf-8")


def _predictions(files: _ReportFiles, arm: ArmRecord) -> list[pd.DataFrame]:
    """Reads the predictions of an arm, one table for each seed."""
    table = pd.read_parquet(files.path(_PREDICTIONS.format(arm["name"])))
    return [table[table["seed"] == seed] for seed in arm["seeds"]]


def _arm(
    files: _ReportFiles, stored: ArmRecord, fits: list[pd.DataFrame], probabilities: list[str], seconds: float
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


def _histories(files: _ReportFiles, stored: ArmRecord) -> tuple[pd.DataFrame, ...]:
    if not stored["has_epochs"]:
        return tuple(pd.DataFrame() for _ in stored["seeds"])
    table = pd.read_csv(files.path(_CURVES.format(_owner_of_curves(stored))))
    return tuple(table[table["seed"] == seed].drop(columns="seed").reset_index(drop=True) for seed in stored["seeds"])


def _owner_of_curves(arm: ArmRecord) -> str:
    """Returns the name of the arm whose file has the learning curves of this one: arms that share fits share it."""
    return arm.get("curves", arm["name"])
