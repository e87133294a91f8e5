"""The sentences of a report: headline, caution and protocol, written from the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hirise_imb.metrics.bootstrap import MIN_SOURCES, N_RESAMPLES
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.formatting import join_words, p_value, plural
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Origin, Results

_MAX_NAMED = 6
"""Number of arms that a sentence names at most."""


def headline(results: Results) -> str:
    """Returns the answer: which strategy validation selects, how much better it is on the test split, how certain."""
    if results.origins:
        return " ".join(_describe_origin(results, origin) for origin in results.origins)
    base, control = results.arms[0], results.control
    base_f1 = results.macro(base.name).mean
    tuning = "" if control is None else f" {_describe_tuning(results, control)}"
    if results.chosen is None:
        return f"No strategy gave a result here. The baseline reaches macro F1 {base_f1:.3f} on the test split.{tuning}"
    references = [base] if control is None else [base, control]
    above = sum(results.macro(arm.name).mean > base_f1 for arm in results.strategies)
    return (
        f"{_introduce(results, results.chosen, references)} {compare_with_reference(results, results.chosen)}{tuning} "
        f"{above} of {len(results.strategies)} strategies score above the baseline on the test split."
    )


def compare_with_reference(results: Results, arm: Arm) -> str:
    """Returns a predicate, with its full stop, that compares an arm with the reference on the test split."""
    score, reference = results.macro(arm.name).mean, results.macro(results.reference).mean
    interval = results.inference.against(arm.name, results.reference).interval
    words = f"95 % confidence interval {interval.low:+.3f} to {interval.high:+.3f}" if interval else "no interval"
    return (
        f"reaches macro F1 {score:.3f} on the test split, against {reference:.3f} for {_name_reference(results)}: "
        f"{score - reference:+.3f} ({words} over {plural(results.inference.total, 'source')}), "
        f"{_verdict(results, arm)}."
    )


def describe_resolution(results: Results) -> str:
    """Returns a sentence on the minimum detectable differences; empty if nothing is tested."""
    if not results.inference.family:
        return ""
    reference = _name_reference(results)
    sizes = results.inference.min_detectable_difference
    where = plural(results.inference.total, "source")
    if not any(tested.swap.informative_sources for tested in results.inference.tests.values()):
        return f"All arms have the same counts as {reference} in every source, so nothing can be tested."
    if sizes is None:
        return f"No difference to {reference} could be statistically significant on {where} (p <= {ALPHA:g})."
    text = f"On {where}, the minimum detectable difference in macro F1 to {reference} (one test, p <= {ALPHA:g}) is"
    if results.inference.family == 1:
        return f"{text} {sizes.low:.3f}."
    return (
        f"{text} {sizes.low:.3f} to {sizes.high:.3f}, depending on the arm; after correction for "
        f"{results.inference.family} comparisons it is larger."
    )


def _verdict(results: Results, arm: Arm) -> str:
    """Returns the outcome of the swap test as a relative clause."""
    tested = results.inference.tests[arm.name]
    swap, family = tested.swap, results.inference.family
    p = f"swap test {p_value(swap.p)}"
    if family > 1:
        p += f", {p_value(tested.p_holm).removeprefix('p = ')} after Holm over {family} comparisons"
    if swap.informative_sources == 0:
        return f"since it has the same counts as {_name_reference(results)} in every source"
    if tested.p_holm <= ALPHA:
        return f"which is statistically significant ({p})"
    if swap.p <= ALPHA:
        return (
            f"which is statistically significant in this comparison alone, but not after correction for {family} ({p})"
        )
    detectable = "no difference could be"
    if swap.min_detectable_difference is not None:
        detectable = f"the minimum detectable difference is {swap.min_detectable_difference:.3f}"
    return f"which is not statistically significant: {detectable} ({p})"


def _name_reference(results: Results) -> str:
    return results.reference if results.origins else "the baseline"


def _describe_origin(results: Results, origin: Origin) -> str:
    arms = {arm.name: arm for arm in results.arms}
    if origin.chosen is not None:
        return (
            f"{origin.chosen}, the best strategy of {origin.name} on validation, "
            f"{compare_with_reference(results, arms[origin.chosen])}"
        )
    others = [name for name in origin.arms if name != results.reference]
    if not others:
        return f"{origin.name} has no other arm."
    return f"{others[0]} {compare_with_reference(results, arms[others[0]])}"


def _introduce(results: Results, best: Arm, references: Sequence[Arm]) -> str:
    """Returns the subject of the headline: the best strategy on validation, and whether it beats the references."""
    unbeaten = [arm.name for arm in references if best.val_macro_f1 <= arm.val_macro_f1]
    if not unbeaten:
        ties = [arm.name for arm in results.strategies[1:] if arm.val_macro_f1 == best.val_macro_f1]
        tie = f" (tied with {', '.join(ties)})" if ties else ""
        return f"{best.name}, the best strategy on validation{tie},"
    names = " or ".join(
        f"the {'baseline' if arm is references[0] else 'control'}" for arm in references if arm.name in unbeaten
    )
    return f"On validation no strategy beats {names}; the best one, {best.name},"


def _describe_tuning(results: Results, control: Arm) -> str:
    tuned, baseline = results.macro(control.name).mean, results.macro(results.reference).mean
    interval = results.inference.against(control.name, results.reference).interval
    words = f" ({interval.low:+.3f} to {interval.high:+.3f})" if interval else ""
    return f"Tuning alone gives {tuned - baseline:+.3f}{words}: the control, {control.name}, reaches {tuned:.3f}."


def caution(results: Results) -> str:
    """Returns what to bear in mind when reading the numbers."""
    seeds = {len(arm.seeds) for arm in results.arms}
    ranges = "Ranges are over seeds, confidence intervals over sources."
    if seeds == {1}:
        ranges = "Fitted with one seed, so without ranges."
    elif 1 in seeds:
        ranges += " Arms that were fitted with one seed have no range."
    return " ".join(text for text in (ranges, describe_resolution(results), describe_limits(results)) if text)


def describe_limits(results: Results) -> str:
    """Returns what no report on this test split can say: classes of few sources, absent ones, capped training."""
    few = [f"{results.classes[k]} ({n})" for k, n in enumerate(results.sources) if 0 < n < MIN_SOURCES]
    absent = [results.classes[k] for k, n in enumerate(results.support) if n == 0]
    capped = [f"{arm.name} ({arm.at_last_epoch} of {len(arm.seeds)})" for arm in results.ordered if arm.at_last_epoch]
    text = "Images of one source observation are not independent, so the uncertainty of a class is over its sources."
    if few:
        text += f" Classes with fewer than six test sources, for which no interval can be estimated: {', '.join(few)}."
    if absent:
        text += f" Classes without a test landmark, which count as F1 = 0 in macro F1: {', '.join(absent)}."
    if len(capped) > _MAX_NAMED:
        capped = [*capped[:_MAX_NAMED], f"and {len(capped) - _MAX_NAMED} more arms"]
    if capped:
        text += f" Fits whose best epoch is the last one allowed, and which might gain from more: {', '.join(capped)}."
    return text


def protocol(results: Results) -> list[str]:
    """Returns how recipes were selected and what all arms have in common, as sentences derived from the arms."""
    sentences = _comparison_protocol(results) if results.origins else _study_protocol(results)
    return [*sentences, _describe_uncertainty(results)]


def _study_protocol(results: Results) -> Iterator[str]:
    with_search = [arm for arm in results.ordered if arm.trials]
    if with_search:
        yield _describe_selection(with_search)
        yield _describe_budget(with_search)
        yield from _describe_spaces(results, with_search)
        yield (
            "The validation column compares all arms on the same folds, with the study's seed. A strategy's recipe was "
            "selected as the best of its trials, which biases its validation score upwards; nothing was selected for "
            "the baseline."
        )
    yield _describe_stopping(results)
    seeds = len(results.arms[0].seeds)
    text = (
        f"The baseline and each selected recipe were then fitted on the training split with {seeds} "
        f"seed{'s' if seeds > 1 else ''}, and stopped on the given validation split. These fits alone are scored on "
        "the test split, with one canonical image a landmark; no trial used it. Every score can be recomputed from "
        "predictions/."
    )
    if "test_access" in results.environment:
        text += " How often and when it was predicted is in environment.json."
    yield text


def _comparison_protocol(results: Results) -> Iterator[str]:
    yield (
        f"All arms are compared with {results.reference} on the same {len(results.test):,} test landmarks, with the "
        "same classes; reports that were tested on other landmarks are refused."
    )
    yield (
        "Each report selected its recipes on its own validation landmarks, so validation scores can be compared only "
        "within a report. The protocol of each is in its own report."
    )


def _describe_uncertainty(results: Results) -> str:
    return (
        f"Confidence intervals of macro F1 come from {N_RESAMPLES:,} resamples of the "
        f"{plural(results.inference.total, 'test source')}, the same ones for all arms, and of the fits of each arm "
        "(expanded percentiles, Hesterberg 2015; a class that was not drawn is left out of a resample's mean). A class "
        f"has an interval only if it has {MIN_SOURCES} sources or more. Arms are tested against "
        f"{_name_reference(results)} by the source-level swap test on macro F1, two-sided, with Holm's (1979) "
        "correction. Differences of single classes are descriptive: they are not tested."
    )


def _describe_selection(arms: Sequence[Arm]) -> str:
    folds = "in a cross-validation over training and validation with folds by source"
    given = "on the given validation split"
    on_split = [arm for arm in arms if arm.selection == "val"]
    if not on_split:
        return f"Recipes were selected by macro F1 {folds}."
    if len(on_split) == len(arms):
        return f"Recipes were selected by macro F1 {given}."
    # Cross-validation would train the backbone once a fold, which is a matter of hours.
    fine_tuned = all(arm.recipe["cut"] != "top" for arm in on_split)
    why = ", which fine-tune the backbone," if fine_tuned else ""
    names = join_words([arm.name for arm in on_split])
    return (
        f"Recipes were selected by macro F1 {folds}; those of {names}{why} {given}, so that their validation scores "
        "are on another scale."
    )


def _describe_budget(arms: Sequence[Arm]) -> str:
    counts = [len(arm.trials) for arm in arms]
    if min(counts) == max(counts):
        return f"Every search has {counts[0]} finished trial{'s' if counts[0] > 1 else ''}."
    return f"The searches have {min(counts)} to {max(counts)} finished trials, so their budgets differ."


def _describe_spaces(results: Results, arms: Sequence[Arm]) -> Iterator[str]:
    shared: dict[tuple[str, ...], list[str]] = {}
    for parameter in results.appendix["shared_parameters"]:
        shared.setdefault(tuple(parameter["strategies"]), []).append(f"{parameter['name']} ({parameter['range']})")
    for names, parameters in shared.items():
        yield f"{len(names)} of the {len(arms)} searches share {join_words(parameters)}."
    dependents: dict[tuple[str, ...], list[str]] = {}
    for strategy in results.appendix["strategies"]:
        dependents.setdefault(tuple(strategy["starts_from"]), []).append(strategy["name"])
    for bases, strategies in dependents.items():
        if bases:
            start = "starts" if len(strategies) == 1 else "start"
            yield (
                f"{join_words(strategies)} {start} from the recipe selected for {join_words(bases)}, with trials in "
                "addition to those."
            )


def _describe_stopping(results: Results) -> str:
    trained = [arm for arm in results.ordered if arm.has_epochs]
    by_f1 = [arm.name for arm in trained if arm.recipe["monitor"] == "val_macro_f1"]
    by_loss = [arm.name for arm in trained if arm.recipe["monitor"] == "val_loss"]
    if not by_f1:
        return "Early stopping is on validation loss."
    text = (
        f"Early stopping is on validation loss for {join_words(by_loss)}, and on validation macro F1 for all other "
        "arms that train in epochs, because re-weighted losses do not aim at a low cross-entropy."
    )
    if results.control is not None and results.control.name in by_f1 and results.reference in by_loss:
        text += (
            " The control stops in the same way, so its difference to the baseline includes that of the stopping rule."
        )
    return text
