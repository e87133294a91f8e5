"""Merges reports on the same landmarks into one: every arm against the baseline of the first report."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w

from hirise_imb.metrics.classification import Predictions
from hirise_imb.reporting.formatting import join_words, plural
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Arm, Omitted, Origin
from hirise_imb.reporting.results import GIVEN_SPLIT_FOLDER, Results
from hirise_imb.reporting.verdict import verdict
from hirise_imb.utils.errors import UserError


def merge_reports(folders: Sequence[Path], name: str) -> Results:
    """Reads reports and collects their arms.

    Args:
        folders: folders of the reports; all arms are compared with the baseline of the first.
        name: name of the comparison.

    Raises:
        UserError: there are fewer than two reports, one is itself a comparison, or designs, tested landmarks, outer
            folds or classes differ.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("A comparison takes two or more different reports: name their folders.")
    reports = [read_report(folder) for folder in folders]
    for folder, report in zip(folders, reports, strict=True):
        if report.origins:
            raise UserError(f"{folder} is itself a comparison: name the reports that it compares instead.")
        _check_same_design(folders[0], reports[0], folder, report)
        _check_same_test(folders[0], reports[0], folder, report)
        _check_same_metric(folders[0], reports[0], folder, report)
        _check_same_folds(folders[0], reports[0], folder, report)
    labels = _label_reports(folders)
    definitions = {label: tomllib.loads(report.study_toml) for label, report in zip(labels, reports, strict=True)}
    first = reports[0]
    arms: list[Arm] = []
    origins, settings = [], []
    seconds: dict[str, float] = {}
    for label, report in zip(labels, reports, strict=True):
        aligned = [_align_predictions(arm, label, first.test) for arm in report.ordered]
        duplicates = {arm.name: twin.name for arm in aligned if (twin := _find_duplicate(arm, arms)) is not None}
        new_arms = [arm for arm in aligned if arm.name not in duplicates]
        arms += new_arms
        origins.append(_origin(label, report, new_arms, duplicates))
        settings.append(_describe_setting(label, report, first, labels[0], duplicates))
        seconds |= {arm.name: arm.seconds for arm in new_arms}
    return Results(
        name=name,
        setting=" ".join(settings),
        study_toml=tomli_w.dumps({"reports": definitions}),
        classes=first.classes,
        test=first.test,
        data=first.data,
        arms=tuple(arms),
        environment={
            "seconds": seconds,
            "reports": {label: report.environment for label, report in zip(labels, reports, strict=True)},
        },
        omitted=tuple(
            Omitted(f"{label}/{strategy.name}", strategy.summary, strategy.reason)
            for label, report in zip(labels, reports, strict=True)
            for strategy in report.omitted
        ),
        origins=tuple(origins),
        outer_folds=first.outer_folds,
        target=first.target,
        costs=first.costs,
    )


def _check_same_design(first_folder: Path, first: Results, folder: Path, report: Results) -> None:
    if first.terms == report.terms:
        return
    nested, given = (first_folder, folder) if first.terms.nested else (folder, first_folder)
    instead = f"{nested / GIVEN_SPLIT_FOLDER} instead of {nested}"
    if (first if first.terms.nested else report).given_split is None:
        instead = f"another report of a nested cross-validation instead of {given}"
    raise UserError(
        f"{nested} is the report of a nested cross-validation, and {given} is one of the given split: scores can be "
        f"compared only within one design, so name {instead}."
    )


def _check_same_metric(first_folder: Path, first: Results, folder: Path, report: Results) -> None:
    if first.target != report.target:
        raise UserError(
            f"The searches of {folder} maximised {report.target.name}, and those of {first_folder} "
            f"{first.target.name}: compare reports with the same metric (and costs)."
        )


def _check_same_folds(first_folder: Path, first: Results, folder: Path, report: Results) -> None:
    if first.outer_folds is None or report.outer_folds is None:
        return
    if first.repeats != report.repeats:
        raise UserError(
            f"{folder} has {plural(report.repeats, 'repeat')} of the nested cross-validation, and {first_folder} has "
            f"{first.repeats}: scores can be compared only with the same outer folds, so run both with the same "
            "--repeats."
        )
    folds, others = (
        results.set_index(["repeat", "source"])["fold"] for results in (first.outer_folds, report.outer_folds)
    )
    moved = folds.index[folds != others.reindex(folds.index)]
    if len(moved):
        repeat, source = moved[0]
        raise UserError(
            f"{folder} has other outer folds than {first_folder} (first: {source} is in fold {others[repeat, source]} "
            f"instead of {folds[repeat, source]}): scores can be compared only with the same outer folds, so run both "
            "on the same data with the same --outer-folds."
        )


def _check_same_test(first_folder: Path, first: Results, folder: Path, report: Results) -> None:
    if first.classes.names != report.classes.names:
        raise UserError(
            f"{folder} has the classes {', '.join(report.classes)}, and {first_folder} has "
            f"{', '.join(first.classes)}: scores can be compared only on the same classes."
        )
    expected, actual = (_landmarks(results.test) for results in (first, report))
    if set(expected) != set(actual):
        n_common = len(set(expected) & set(actual))
        example = sorted(set(expected) ^ set(actual))[0]
        counts = f"{len(actual):,} and {len(expected):,}, {n_common:,} in both"
        raise UserError(
            f"{folder} was tested on other landmarks than {first_folder} ({counts}; {example} is in only one): scores "
            "can be compared only on the same test landmarks."
        )
    mismatches = sorted(image for image in expected if expected[image] != actual[image])
    if mismatches:
        raise UserError(
            f"{folder} and {first_folder} name different classes or sources for {len(mismatches):,} of "
            f"{len(expected):,} test landmarks (first: {mismatches[0]}): compare reports of the same version of the "
            "test labels."
        )


def _landmarks(test: pd.DataFrame) -> dict[str, tuple[int, str]]:
    """Returns the class and the source of each test image, by name."""
    return dict(zip(test["image"], zip(test["label"], test["source"], strict=True), strict=True))


def name_folder(folder: Path) -> str:
    """Returns the name of the folder of a report; that of a given split begins with the name of its study."""
    path = folder.resolve()
    return f"{path.parent.name}-{path.name}" if path.name == GIVEN_SPLIT_FOLDER else path.name


def _label_reports(folders: Sequence[Path]) -> list[str]:
    """Returns a label for each report: the name of its folder, numbered if several have the same name."""
    # Labels become parts of file names, so they contain only characters that every file system accepts.
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", name_folder(folder)).strip("-._") or "report" for folder in folders]
    counts = Counter(names)
    labels: list[str] = []
    for name in names:
        numbered = (f"{name}-{n}" for n in count(1))
        unused = (label for label in numbered if label not in {*names, *labels})
        labels.append(name if counts[name] == 1 else next(unused))
    return labels


def _align_predictions(arm: Arm, label: str, test: pd.DataFrame) -> Arm:
    """Returns the arm with its name in the comparison, and with its predictions in the order of `test`."""
    images = tuple(test["image"])
    predictions = []
    for fit in arm.predictions:
        rows = pd.Index(fit.images).get_indexer(pd.Index(images))
        predictions.append(Predictions(images, fit.probabilities[rows]))
    return replace(arm, name=f"{label}/{arm.name}", predictions=tuple(predictions))


def _find_duplicate(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Returns the arm of an earlier report with the same name and the same fits; None if there is none.

    If it were listed twice, the Holm correction would count one comparison as two.
    """
    name = _name_in_report(arm.name)
    return next((other for other in arms if _name_in_report(other.name) == name and _are_same_fits(arm, other)), None)


def _name_in_report(name: str) -> str:
    """Returns the name of an arm in its own report."""
    return name.rpartition("/")[2]


def _are_same_fits(one: Arm, other: Arm) -> bool:
    """Checks whether two arms have the same seeds and equal predictions, bit by bit."""
    return one.seeds == other.seeds and all(
        np.array_equal(first.probabilities, second.probabilities)
        for first, second in zip(one.predictions, other.predictions, strict=True)
    )


def _origin(label: str, report: Results, arms: Sequence[Arm], duplicates: Mapping[str, str]) -> Origin:
    """Returns the record of a report; the arm that it advises may be listed under an earlier report."""
    choice = verdict(report).choice if report.strategies else None
    chosen = None if choice is None else f"{label}/{choice}"
    if chosen is not None:
        chosen = duplicates.get(chosen, chosen)
    return Origin(label, report.name, report.setting, tuple(arm.name for arm in arms), chosen)


def _describe_setting(
    label: str, report: Results, first: Results, first_label: str, duplicates: Mapping[str, str]
) -> str:
    text = f"{label}: {report.setting}"
    shared: dict[str, list[str]] = {}
    for name, duplicate in duplicates.items():
        shared.setdefault(duplicate.rpartition("/")[0], []).append(_name_in_report(name))
    for other, names in shared.items():
        same, are = ("is the same as that", "is") if len(names) == 1 else ("are the same as those", "are")
        text += f" Its {join_words(names)} {same} of {other}, to the last bit, and {are} listed here once."
    if not report.data.equals(first.data):
        text += f" Its training data differs from that of {first_label}, which is shown below."
    return text
