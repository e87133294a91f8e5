"""The sentences of a study's report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hirise_imb.metrics.bootstrap import MIN_SOURCES, N_RESAMPLES
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.formatting import join_words, p_value, plural
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Origin, Results

_NAMED = 6
"""Arms that a sentence names at most."""


def headline(results: Results) -> str:
    """The answer: which strategy, how much better, how sure; the strategy was chosen on validation."""
    if results.origins:
        return " ".join(_of_origin(results, origin) for origin in results.origins)
    base, control = results.arms[0], results.control
    start = results.macro(base.name).mean
    alone = "" if control is None else f" {_tuning(results, control)}"
    if results.chosen is None:
        return f"No strategy gave a result here. The baseline reaches macro F1 {start:.3f} on the test split.{alone}"
    references = [base] if control is None else [base, control]
    above = sum(results.macro(arm.name).mean > start for arm in results.strategies)
    return (
        f"{_begin(results, results.chosen, references)} {against(results, results.chosen)}{alone} {above} of "
        f"{len(results.strategies)} strategies score above the baseline there."
    )


def against(results: Results, arm: Arm) -> str:
    """How an arm compares with the reference on the test split; goes on after a name and ends the sentence."""
    reached, start = results.macro(arm.name).mean, results.macro(results.reference).mean
    interval = results.inference.against(arm.name, results.reference).interval
    between = f"95 % confidence interval {interval.low:+.3f} to {interval.high:+.3f}" if interval else "no interval"
    return (
        f"reaches macro F1 {reached:.3f} on the test split against {start:.3f} of {_named(results)}: "
        f"{reached - start:+.3f} ({between} over {plural(results.inference.total, 'source')}), "
        f"{_verdict(results, arm)}."
    )


def resolution(results: Results) -> str:
    """Returns the minimum detectable differences in a sentence, to be read with the table."""
    if not results.inference.family:
        return ""
    sizes = results.inference.min_detectable_difference
    where = plural(results.inference.total, "source")
    if not any(tested.swap.informative_sources for tested in results.inference.tests.values()):
        return f"In every source the counts of all arms are those of {_named(results)}, so there is nothing to test."
    if sizes is None:
        return f"No difference to {_named(results)} could be statistically significant on {where} (p <= {ALPHA:g})."
    text = (
        f"On {where}, the minimum detectable difference in macro F1 to {_named(results)} (one test, p <= {ALPHA:g}) is"
    )
    if results.inference.family == 1:
        return f"{text} {sizes.low:.3f}."
    return (
        f"{text} {sizes.low:.3f} to {sizes.high:.3f}, depending on the arm; as one of {results.inference.family} "
        "comparisons it is larger."
    )


def _verdict(results: Results, arm: Arm) -> str:
    tested = results.inference.tests[arm.name]
    swap, family = tested.swap, results.inference.family
    told = f"swap test {p_value(swap.p)}"
    if family > 1:
        told += f", {p_value(tested.p_holm).removeprefix('p = ')} after Holm over {family} comparisons"
    if swap.informative_sources == 0:
        return f"as its counts in every source are those of {_named(results)}"
    if tested.p_holm <= ALPHA:
        return f"which is statistically significant ({told})"
    if swap.p <= ALPHA:
        return f"which is statistically significant in this comparison alone, but not as one of {family} ({told})"
    least = "no difference could be here"
    if swap.min_detectable_difference is not None:
        least = f"the minimum detectable difference is {swap.min_detectable_difference:.3f}"
    return f"which is not statistically significant: {least} ({told})"


def _named(results: Results) -> str:
    return results.reference if results.origins else "the baseline"


def _of_origin(results: Results, origin: Origin) -> str:
    arms = {arm.name: arm for arm in results.arms}
    if origin.chosen is not None:
        return (
            f"{origin.chosen}, the best strategy of {origin.name} on validation, "
            f"{against(results, arms[origin.chosen])}"
        )
    others = [name for name in origin.arms if name != results.reference]
    if not others:
        return f"{origin.name} has no further arm."
    return f"{others[0]} {against(results, arms[others[0]])}"


def _begin(results: Results, best: Arm, references: Sequence[Arm]) -> str:
    unbeaten = [arm.name for arm in references if best.val_macro_f1 <= arm.val_macro_f1]
    if not unbeaten:
        equals = [arm.name for arm in results.strategies[1:] if arm.val_macro_f1 == best.val_macro_f1]
        tie = f" (as good there: {', '.join(equals)})" if equals else ""
        return f"{best.name}, the best strategy on validation{tie},"
    names = " or ".join(
        f"the {'baseline' if arm is references[0] else 'control'}" for arm in references if arm.name in unbeaten
    )
    return f"On validation no strategy beats {names}; the nearest, {best.name},"


def _tuning(results: Results, control: Arm) -> str:
    tuned, start = results.macro(control.name).mean, results.macro(results.reference).mean
    interval = results.inference.against(control.name, results.reference).interval
    between = f" ({interval.low:+.3f} to {interval.high:+.3f})" if interval else ""
    return f"Tuning alone gives {tuned - start:+.3f}{between}: the control, {control.name}, reaches {tuned:.3f}."


def caution(results: Results) -> str:
    """What the numbers can't tell."""
    seeds = {len(arm.seeds) for arm in results.arms}
    ranges = "Ranges are over seeds, confidence intervals over sources."
    if seeds == {1}:
        ranges = "Fitted with one seed, so without ranges."
    elif 1 in seeds:
        ranges += " Arms that were fitted with one seed have no range."
    return " ".join(text for text in (ranges, resolution(results), limits(results)) if text)


def limits(results: Results) -> str:
    """What no number of any report on this test split can tell."""
    few = [f"{results.classes[k]} ({n})" for k, n in enumerate(results.sources) if 0 < n < MIN_SOURCES]
    absent = [results.classes[k] for k, n in enumerate(results.support) if n == 0]
    capped = [f"{arm.name} ({arm.at_last_epoch} of {len(arm.seeds)})" for arm in results.ordered if arm.at_last_epoch]
    text = "Images of one source observation are not independent, so the uncertainty of a class is that of its sources."
    if few:
        text += f" Classes with fewer than six test sources, for which no interval can be estimated: {', '.join(few)}."
    if absent:
        text += f" Classes without a test landmark, which count as F1 0 in macro F1: {', '.join(absent)}."
    if len(capped) > _NAMED:
        capped = [*capped[:_NAMED], f"and {len(capped) - _NAMED} more arms"]
    if capped:
        text += f" Fits that kept the last epoch allowed, and might gain from more: {', '.join(capped)}."
    return text


def protocol(results: Results) -> list[str]:
    """How choices were made and what was done alike, in sentences that follow from the arms."""
    return [*(_compared(results) if results.origins else _protocol(results)), _uncertainty(results)]


def _protocol(results: Results) -> Iterator[str]:
    searched = [arm for arm in results.ordered if arm.trials]
    if searched:
        yield _choice(searched)
        yield _budget(searched)
        yield from _space(results, searched)
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


def _compared(results: Results) -> Iterator[str]:
    yield (
        f"All arms are set against {results.reference}, on the same {len(results.test):,} test landmarks with the same "
        "classes; reports that were tested on others are refused."
    )
    yield (
        "Each report made its choices on its own validation, so the validation column compares arms of one report. "
        "How each was made is in its own report."
    )


def _uncertainty(results: Results) -> str:
    return (
        f"Intervals of macro F1 are from {N_RESAMPLES:,} resamples of the "
        f"{plural(results.inference.total, 'test source')}, the same ones for all arms, and of the fits of each "
        "(expanded percentiles, Hesterberg 2015; a class that was not drawn is left out of a resample's mean); of a "
        f"class only from {MIN_SOURCES} sources on. Against "
        f"{_named(results)}: the source-level swap test on macro F1, two-sided, adjusted by Holm (1979). "
        "Differences of single classes are descriptive: nothing is tested there."
    )


def _choice(searched: Sequence[Arm]) -> str:
    folds = "in a cross-validation over training and validation whose folds keep each source whole"
    given = "on the given validation split"
    named = [arm.name for arm in searched if arm.selection == "val"]
    if not named:
        return f"Recipes were chosen by macro F1 {folds}."
    if len(named) == len(searched):
        return f"Recipes were chosen by macro F1 {given}."
    deep = all(arm.recipe["cut"] != "top" for arm in searched if arm.selection == "val")
    why = ", where layers of the backbone are trained," if deep else ""
    return f"Recipes were chosen by macro F1: {folds}, but of {join_words(named)}{why} {given}, which is another scale."


def _budget(searched: Sequence[Arm]) -> str:
    counts = [len(arm.trials) for arm in searched]
    if min(counts) == max(counts):
        return f"Every search has {counts[0]} finished trial{'s' if counts[0] > 1 else ''}."
    return f"The searches have {min(counts)} to {max(counts)} finished trials, so not all the same budget."


def _space(results: Results, searched: Sequence[Arm]) -> Iterator[str]:
    alike: dict[tuple[str, ...], list[str]] = {}
    for parameter in results.appendix["shared_parameters"]:
        alike.setdefault(tuple(parameter["strategies"]), []).append(f"{parameter['name']} ({parameter['range']})")
    for names, parameters in alike.items():
        yield f"{len(names)} of the {len(searched)} search alike: {join_words(parameters)}."
    bases: dict[tuple[str, ...], list[str]] = {}
    for strategy in results.appendix["strategies"]:
        bases.setdefault(tuple(strategy["starts_from"]), []).append(strategy["name"])
    for after, started in bases.items():
        if after:
            start = "starts" if len(started) == 1 else "start"
            those = join_words(after)
            yield f"{join_words(started)} {start} from the recipe chosen for {those}, with trials beyond those."


def _stopping(results: Results) -> str:
    trained = [arm for arm in results.ordered if arm.has_epochs]
    rest = [arm.name for arm in trained if arm.recipe["monitor"] == "val_macro_f1"]
    loss = [arm.name for arm in trained if arm.recipe["monitor"] == "val_loss"]
    if not rest:
        return "Training stops by validation loss."
    text = (
        f"Training stops by validation loss for {join_words(loss)}, and by validation macro F1 for all others that "
        "have epochs, because re-weighted losses do not aim at a low cross-entropy."
    )
    if results.control is not None and results.control.name in rest and results.reference in loss:
        text += " The control stops as they do, so that part of a difference to the baseline is in the control's too."
    return text
