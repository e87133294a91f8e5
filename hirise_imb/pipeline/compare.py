"""Several reports on the same test landmarks as one: every arm against the baseline of the first."""

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
from hirise_imb.reporting.formatting import join_words
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.records import Arm, Omitted
from hirise_imb.reporting.results import Origin, Results
from hirise_imb.utils.errors import UserError


def compare_reports(folders: Sequence[Path], name: str) -> Results:
    """Read reports and put their arms side by side.

    Args:
        folders: of the reports; the baseline of the first is what all arms are set against.
        name: of the comparison.

    Raises:
        UserError: fewer than two reports, one is itself a comparison, or their test landmarks or classes differ.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("A comparison takes two reports or more, each once: name their folders.")
    reports = [read_report(folder) for folder in folders]
    for folder, report in zip(folders, reports, strict=True):
        if report.origins:
            raise UserError(f"{folder} is itself a comparison: name the reports that it compares.")
        _check_same_test(folders[0], reports[0], folder, report)
    labels = _labels(folders)
    definitions = {label: tomllib.loads(report.study_toml) for label, report in zip(labels, reports, strict=True)}
    first = reports[0]
    arms: list[Arm] = []
    origins, settings = [], []
    seconds: dict[str, float] = {}
    for label, report in zip(labels, reports, strict=True):
        found = [_aligned(arm, label, first.test) for arm in report.ordered]
        twins = {arm.name: twin.name for arm in found if (twin := _twin(arm, arms)) is not None}
        mine = [arm for arm in found if arm.name not in twins]
        arms += mine
        origins.append(_origin(label, report, mine, twins))
        settings.append(_setting(label, report, first, labels[0], twins))
        seconds |= {arm.name: arm.seconds for arm in mine}
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
    )


def _check_same_test(first_folder: Path, first: Results, folder: Path, report: Results) -> None:
    if first.classes.names != report.classes.names:
        raise UserError(
            f"{folder} has the classes {', '.join(report.classes)}, and {first_folder} has "
            f"{', '.join(first.classes)}: scores can be compared on the same classes alone."
        )
    mine, theirs = (_landmarks(results.test) for results in (first, report))
    if set(mine) != set(theirs):
        both = len(set(mine) & set(theirs))
        odd = sorted(set(mine) ^ set(theirs))[0]
        raise UserError(
            f"{folder} was tested on other landmarks than {first_folder} ({len(theirs):,} and {len(mine):,}, {both:,} "
            f"in both; {odd} is in one only): scores can be compared on the same test landmarks alone."
        )
    differ = sorted(image for image in mine if mine[image] != theirs[image])
    if differ:
        raise UserError(
            f"{folder} and {first_folder} name other classes or sources for {len(differ):,} of {len(mine):,} test "
            f"landmarks (first: {differ[0]}): compare reports of the same version of the test labels."
        )


def _landmarks(test: pd.DataFrame) -> dict[str, tuple[int, str]]:
    """Class and source of each image."""
    return dict(zip(test["image"], zip(test["label"], test["source"], strict=True), strict=True))


def _labels(folders: Sequence[Path]) -> list[str]:
    """What tells the reports apart: names of their folders, numbered where they are the same."""
    # They become parts of file names.
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "report" for folder in folders]
    many = Counter(names)
    labels: list[str] = []
    for name in names:
        numbered = (f"{name}-{n}" for n in count(1))
        labels.append(name if many[name] == 1 else next(label for label in numbered if label not in {*names, *labels}))
    return labels


def _aligned(arm: Arm, label: str, test: pd.DataFrame) -> Arm:
    """The arm under its name in the comparison, its predictions in the order of `test`."""
    images = tuple(test["image"])
    predictions = []
    for fit in arm.predictions:
        places = pd.Index(fit.images).get_indexer(pd.Index(images))
        predictions.append(Predictions(images, fit.probabilities[places]))
    return replace(arm, name=f"{label}/{arm.name}", predictions=tuple(predictions))


def _twin(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm of an earlier report that has the same name there and is the same fits.

    Counted twice it would make the family of tests larger than it is.
    """
    return next((other for other in arms if _own(other.name) == _own(arm.name) and _same(arm, other)), None)


def _own(name: str) -> str:
    """The name of an arm in its own report."""
    return name.rpartition("/")[2]


def _same(one: Arm, other: Arm) -> bool:
    """Whether two arms are the same fits."""
    return one.seeds == other.seeds and all(
        np.array_equal(mine.probabilities, theirs.probabilities)
        for mine, theirs in zip(one.predictions, other.predictions, strict=True)
    )


def _origin(label: str, report: Results, arms: Sequence[Arm], twins: Mapping[str, str]) -> Origin:
    chosen = f"{label}/{report.chosen.name}" if report.chosen else None
    stands = None if chosen is None else twins.get(chosen, chosen)
    return Origin(label, report.name, report.setting, tuple(arm.name for arm in arms), stands)


def _setting(label: str, report: Results, first: Results, first_label: str, twins: Mapping[str, str]) -> str:
    text = f"{label}: {report.setting}"
    shared: dict[str, list[str]] = {}
    for name, twin in twins.items():
        shared.setdefault(twin.rpartition("/")[0], []).append(_own(name))
    for other, names in shared.items():
        those, stand = ("is that", "stands") if len(names) == 1 else ("are those", "stand")
        text += f" Its {join_words(names)} {those} of {other}, to the last bit, and {stand} here once."
    if not report.data.equals(first.data):
        text += f" It has other data for training than {first_label}, whose data is shown below."
    return text
