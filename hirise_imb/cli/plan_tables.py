"""Tables of what landmarks can tell, and of what a study takes, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.tables import empty_table
from hirise_imb.config import GIVEN_SPLIT
from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.metrics.detectable import BETWEEN, OWN, PAIRS, DetectableDifference
from hirise_imb.metrics.targets import MACRO_F1
from hirise_imb.pipeline.cost import N_CORES
from hirise_imb.pipeline.plan import StudyPlan
from hirise_imb.reporting.formatting import MISSING, plural
from hirise_imb.reporting.terms import NO_SOURCES

_SMALL_GAIN = 0.02
"""Gain of macro F1 that people hope for, and that few data sets can tell from chance."""


def print_sources(manifest: Manifest, console: Console) -> None:
    """Prints the number of sources of each class, in all splits and in each."""
    summary = manifest.summary().set_index(["label", "split"])
    sources, landmarks = summary["sources"].to_dict(), summary["landmarks"].to_dict()
    table = empty_table("Sources by class", padding=1)
    table.add_column("class")
    for column in ("all", *SPLITS, "landmarks"):
        table.add_column(column, justify="right")
    for label, name in enumerate(manifest.spec.classes):
        by_split = [sources[label, split] for split in SPLITS]
        n_landmarks = sum(landmarks[label, split] for split in SPLITS)
        # No source is in two splits.
        table.add_row(name, *(f"{count:,}" for count in (sum(by_split), *by_split, n_landmarks)))
    by_split = [manifest.split(split)["source"].nunique() for split in SPLITS]
    n_landmarks = manifest.table["landmark"].nunique()
    table.add_section()
    table.add_row("any class", *(f"{count:,}" for count in (sum(by_split), *by_split, n_landmarks)))
    console.print(table)
    if not manifest.has_sources:
        console.print(NO_SOURCES)
    console.print()


def print_detectable(
    detectable: Mapping[str, DetectableDifference], n_fits: int, console: Console, metric: str = MACRO_F1.name
) -> None:
    """Prints the minimum detectable difference of macro F1 under each design.

    Args:
        detectable: minimum detectable differences by design.
        n_fits: number of fits of each simulated arm.
        console: console to print to.
        metric: target metric of the study.
    """
    table = empty_table("Minimum detectable difference of macro F1", padding=1)
    table.add_column("design")
    table.add_column("sources tested", justify="right")
    table.add_column("all classes", justify="right")
    table.add_column(f"with {MIN_SOURCES} sources or more", justify="right")
    for design, found in detectable.items():
        several = (
            f"{_size(found.several_sources)} ({_count(found.n_several, 'class', 'classes')})"
            if found.n_several
            else MISSING
        )
        table.add_row(design, str(found.n_sources), _size(found.all_classes), several)
    console.print(table)
    text = (
        f"Simulated on these counts, not measured: the median over {PAIRS} pairs of equally good arms, each the mean "
        f"of {plural(n_fits, 'fit')}, which recognise all rare classes equally well and whose log odds of a hit vary "
        f"between sources with a standard deviation of {BETWEEN}, and of {OWN} for each arm by itself; between "
        "arms with similar predictions, smaller differences can be detected."
    )
    console.print(text)
    if metric != MACRO_F1.name:
        console.print(f"The target metric of this study is {metric}, for which nothing is simulated.")
    smallest = min((found.all_classes for found in detectable.values() if found.all_classes is not None), default=None)
    if smallest is None or smallest > _SMALL_GAIN:
        console.print(f"Gains of 0.01 to {_SMALL_GAIN} stay out of reach with these sources.")
    console.print()


def print_plan(plan: StudyPlan, console: Console) -> None:
    """Prints what a study can detect, and its fits, disk and time."""
    print_sources(plan.manifest, console)
    detectable = {design.name: design.detectable for design in plan.designs}
    print_detectable(detectable, plan.definition.refits, console, plan.definition.metric)
    print_cost(plan, console)


def print_cost(plan: StudyPlan, console: Console) -> None:
    """Prints the fits, the disk and the time of a study."""
    definition, features = plan.definition, plan.features
    table = empty_table(f"The study {definition.name} on {N_CORES} cores", padding=1)
    for column in ("", "fits at most", "fine-tuning", "disk", "time"):
        table.add_column(column, justify="right" if column else "left")
    if definition.features:
        table.add_row("features, from a table", "", "", "", "")
    else:
        table.add_row(
            f"features, {features.n_views:,} views", "", "", _disk(features.bytes), format_time(features.seconds)
        )
    for design in plan.designs:
        name = design.name
        if name != GIVEN_SPLIT:
            name += f", {plural(design.n_divisions, 'outer fold')}"
        table.add_row(
            name, f"{design.fits:,}", f"{design.fine_tuning_fits:,}", _disk(design.bytes), format_time(design.seconds)
        )
    table.add_section()
    table.add_row(
        "in all",
        f"{sum(design.fits for design in plan.designs):,}",
        f"{sum(design.fine_tuning_fits for design in plan.designs):,}",
        _disk(features.bytes + sum(design.bytes for design in plan.designs)),
        format_time(features.seconds + sum(design.seconds for design in plan.designs)),
    )
    console.print(table)
    trials = plural(definition.trials, "trial")
    if plan.fine_tunes:
        trials += f" ({min(definition.trials, definition.fine_tuning_trials)} where the backbone is fine-tuned)"
    text = (
        f"Searches of up to {trials} for {_count(len(plan.strategies), 'strategy', 'strategies')}, the control among "
        "them. Fits and disk are upper bounds. Times are rough: they follow from the numbers of fits, images and "
        f"features, and from speeds measured on {N_CORES} cores."
    )
    if not definition.features:
        text += " Extraction is included; features that are cached take no time and no more disk."
        if BACKBONES[definition.backbone].images_per_second is None:
            text += f" The speed of {definition.backbone} was not measured: that of a small network is assumed."
    console.print(text)
    if features.unknown_cuts:
        console.print(
            f"The disk for features leaves out {', '.join(features.unknown_cuts)}, whose shapes the backbone "
            f"{definition.backbone} does not declare.",
            highlight=False,
        )


def _count(number: int, singular: str, plural_form: str) -> str:
    return f"{number} {singular if number == 1 else plural_form}"


def _size(difference: float | None) -> str:
    return MISSING if difference is None else f"{difference:.2f}" if difference >= 0.1 else f"{difference:.3f}"


def _disk(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(n_bytes / 1e6, 1):,.0f} MB"


def format_time(seconds: float) -> str:
    """Formats a rough duration in minutes, or in hours where there are many."""
    minutes = seconds / 60
    if minutes < 1:
        return "under 1 min"
    return f"about {minutes:,.0f} min" if minutes < 180 else f"about {minutes / 60:,.0f} h"
