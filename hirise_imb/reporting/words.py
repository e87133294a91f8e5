"""The sentences of a study's report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting.arms import Arm
from hirise_imb.reporting.results import BASELINE, Results

_NAMED = 6
"""Arms that a sentence names at most."""


def headline(results: Results) -> str:
    """The answer in two or three sentences; the strategy it names was chosen on validation."""
    base, control = results.arms[0], results.control
    start = results.macro(BASELINE).mean
    if not results.strategies:
        alone = "" if control is None else f" {_tuning(results, control)}"
        return f"No strategy came to a result here. The baseline reaches macro F1 {start:.3f} on the test split.{alone}"
    best = results.strategies[0]
    reached = results.macro(best.name).mean
    text = (
        f"{_begin(best, [base] if control is None else [base, control])} reaches macro F1 {reached:.3f} on the test "
        f"split, against {start:.3f} of the baseline ({reached - start:+.3f})"
    )
    if control is not None:
        tuned = results.macro(control.name).mean
        text += (
            f" and {tuned:.3f} of the control, {control.name} ({reached - tuned:+.3f}); tuning alone gives "
            f"{tuned - start:+.3f}"
        )
    above = _above(results, start)
    text += f". {above} of {len(results.strategies)} strategies score above the baseline there"
    return f"{text}, {_above(results, tuned)} above the control." if control is not None else f"{text}."


def _begin(best: Arm, references: Sequence[Arm]) -> str:
    unbeaten = [arm.name for arm in references if best.val_macro_f1 <= arm.val_macro_f1]
    if not unbeaten:
        return f"The strategy with the best validation score, {best.name},"
    names = " or ".join(f"the {'baseline' if name == BASELINE else 'control'}" for name in unbeaten)
    return f"On validation no strategy beats {names}; the nearest, {best.name},"


def _tuning(results: Results, control: Arm) -> str:
    tuned, start = results.macro(control.name).mean, results.macro(BASELINE).mean
    return f"Tuning alone gives {tuned - start:+.3f}: the control, {control.name}, reaches {tuned:.3f}."


def _above(results: Results, value: float) -> int:
    return sum(results.macro(arm.name).mean > value for arm in results.strategies)


def caution(results: Results) -> str:
    """What the numbers can't tell."""
    seeds = len(results.arms[0].seeds)
    ranges = "Ranges are over seeds only." if seeds > 1 else "Fitted with one seed, so without ranges."
    return f"{ranges} {limits(results)}"


def limits(results: Results) -> str:
    """What no number of any report on this test split can tell."""
    few = [f"{CLASSES[k]} ({n})" for k, n in enumerate(results.sources) if 0 < n < 6]
    absent = [CLASSES[k] for k, n in enumerate(results.support) if n == 0]
    capped = [f"{arm.name} ({arm.at_last_epoch} of {len(arm.seeds)})" for arm in results.ordered if arm.at_last_epoch]
    text = (
        "Images of one source observation are not independent, so the uncertainty of a class is that of its few "
        "sources, which no range here shows."
    )
    if few:
        text += f" Classes with fewer than six test sources: {', '.join(few)}."
    if absent:
        text += f" Classes without a test landmark, which count as F1 0 in macro F1: {', '.join(absent)}."
    if len(capped) > _NAMED:
        capped = [*capped[:_NAMED], f"and {len(capped) - _NAMED} more arms"]
    if capped:
        text += f" Fits that kept the last epoch allowed, and might gain from more: {', '.join(capped)}."
    return text


def protocol(results: Results) -> list[str]:
    """How choices were made and what was done alike, in sentences that follow from the arms."""
    return list(_protocol(results))


def _protocol(results: Results) -> Iterator[str]:
    searched = [arm for arm in results.ordered if arm.trials]
    if searched:
        yield _choice(searched)
        yield _budget(searched)
        yield from _space(searched)
        yield (
            "The validation column compares all arms on the same folds, with the study's seed. A strategy's recipe was "
            "chosen from its trials, which makes its figure too high; nothing was chosen for the baseline."
        )
    yield _stopping(results)
    seeds = len(results.arms[0].seeds)
    text = (
        f"The baseline and each chosen recipe were then fitted on the training split with {seeds} "
        f"seed{'s' if seeds > 1 else ''}, and stopped on the given validation split. These fits alone are scored on "
        "the test split, with one image a landmark; no trial saw it. Every score can be recomputed from predictions/."
    )
    if "test_access" in results.environment:
        text += " How often it was predicted, and when, is in environment.json."
    yield text


def _choice(searched: Sequence[Arm]) -> str:
    folds = "in a cross-validation over training and validation whose folds keep each source whole"
    given = "on the given validation split"
    named = [arm.name for arm in searched if arm.selection == "val"]
    if not named:
        return f"Recipes were chosen by macro F1 {folds}."
    if len(named) == len(searched):
        return f"Recipes were chosen by macro F1 {given}."
    deep = all(arm.recipe.cut != "top" for arm in searched if arm.selection == "val")
    why = ", where layers of the backbone are trained," if deep else ""
    return f"Recipes were chosen by macro F1: {folds}, but of {_listed(named)}{why} {given}, which is another scale."


def _budget(searched: Sequence[Arm]) -> str:
    counts = [len(arm.trials) for arm in searched]
    if min(counts) == max(counts):
        return f"Every search has {counts[0]} finished trial{'s' if counts[0] > 1 else ''}."
    return f"The searches have {min(counts)} to {max(counts)} finished trials, so not all the same budget."


def _space(searched: Sequence[Arm]) -> Iterator[str]:
    from hirise_imb.strategies import STRATEGIES
    from hirise_imb.strategies.base import OPTIMISER

    known = {arm.name: STRATEGIES[arm.name] for arm in searched if arm.name in STRATEGIES}
    alike = [name for name, strategy in known.items() if set(OPTIMISER) <= set(strategy.parameters)]
    if alike:
        space = _listed([f"{parameter.name} ({parameter.range()})" for parameter in OPTIMISER])
        yield f"{len(alike)} of the {len(searched)} search the optimiser alike: {space}."
    bases: dict[tuple[str, ...], list[str]] = {}
    for name, strategy in known.items():
        bases.setdefault(strategy.after, []).append(name)
    for after, names in bases.items():
        if after:
            start = "starts" if len(names) == 1 else "start"
            yield f"{_listed(names)} {start} from the recipe chosen for {_listed(after)}, with trials beyond those."


def _stopping(results: Results) -> str:
    trained = [arm for arm in results.ordered if arm.recipe.trained]
    rest = [arm.name for arm in trained if arm.recipe.monitor == "val_macro_f1"]
    loss = [arm.name for arm in trained if arm.recipe.monitor == "val_loss"]
    if not rest:
        return "Training stops by validation loss."
    text = (
        f"Training stops by validation loss for {_listed(loss)}, and by validation macro F1 for all others that have "
        "epochs, because re-weighted losses do not aim at a low cross-entropy."
    )
    if results.control is not None and results.control.name in rest and BASELINE in loss:
        text += " The control stops as they do, so that part of a difference to the baseline is in the control's too."
    return text


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
