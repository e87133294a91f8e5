"""The headline and the caution of a report, written from the results."""

from __future__ import annotations

from collections.abc import Iterator

from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.formatting import count_range, join_words, p_value, plural
from hirise_imb.reporting.nested_narrative import nested_headline
from hirise_imb.reporting.records import Arm, Origin
from hirise_imb.reporting.results import CONTRASTS, Contrast, Results
from hirise_imb.reporting.terms import NO_SOURCES

_MAX_NAMED = 6
"""Number of arms that a sentence names at most."""


def headline(results: Results) -> str:
    """Returns the answer.

    For the given split: which strategy validation selects, how much better it is on the test split, how certain. For a
    nested cross-validation: which of all strategies beat the control.
    """
    if results.origins:
        return " ".join(_describe_origin(results, origin) for origin in results.origins)
    if results.outer_folds is not None:
        return nested_headline(results)
    base, control = results.arms[0], results.control
    base_f1 = results.main_score(base.name).mean
    references = f" {_describe_references(results)}" if control or results.to_the_end else ""
    if results.chosen is None:
        return (
            f"No strategy gave a result here. The baseline reaches {results.target.label} {base_f1:.3f} on the test "
            f"split.{references}"
        )
    return (
        f"{_introduce(results, results.chosen)} {_compare_chosen(results, results.chosen)}{references} "
        f"{_count_gains(results)}"
    )


def compare_with_reference(results: Results, arm: Arm) -> str:
    """Returns a predicate, with its full stop, that compares an arm with the reference on the tested landmarks."""
    return _compare_with(results, arm, "vs_baseline")


def _compare_chosen(results: Results, arm: Arm) -> str:
    """Returns a predicate that compares the best strategy with its control, then with the baseline."""
    control = results.control_for(arm)
    if control is None:
        return compare_with_reference(results, arm)
    gain = results.main_gain(arm.name, results.reference)
    baseline = results.main_score(results.reference).mean
    words, verdict = _interval(results, arm, results.reference), _verdict(results, arm, "vs_baseline")
    return (
        f"{_compare_with(results, arm, 'vs_control')} Against the baseline, which reaches {baseline:.3f}, the "
        f"difference is {gain:+.3f} ({words}), {verdict}."
    )


def _compare_with(results: Results, arm: Arm, contrast: Contrast) -> str:
    other = results.other_of(arm, contrast)
    assert other is not None
    score, reference = results.main_score(arm.name).mean, results.main_score(other).mean
    return (
        f"reaches {results.target.label} {score:.3f} {results.terms.where}, against {reference:.3f} for "
        f"{_name_other(results, arm, contrast, full=True)}: {score - reference:+.3f} "
        f"({_interval(results, arm, other)} over {plural(results.inference.total, 'source')}), "
        f"{_verdict(results, arm, contrast)}."
    )


def _interval(results: Results, arm: Arm, other: str) -> str:
    interval = results.inference.against(arm.name, other).interval
    return f"95 % confidence interval {interval.low:+.3f} to {interval.high:+.3f}" if interval else "no interval"


def describe_resolution(results: Results) -> str:
    """Returns sentences on the minimum detectable differences of both families; empty if nothing is tested."""
    return " ".join(_describe_family(results, contrast) for contrast in CONTRASTS if len(results.families[contrast]))


def _describe_family(results: Results, contrast: Contrast) -> str:
    family, reference = results.families[contrast], name_reference(results)
    if contrast == "vs_control":
        reference = "the control"
    where = plural(results.inference.total, "source")
    if not any(tested.swap.informative_sources for tested in family.tests.values()):
        return f"All tested arms have the same counts as {reference} in every source, so nothing can be tested."
    sizes = family.min_detectable_difference
    if sizes is None:
        return f"No difference to {reference} could be statistically significant on {where} (p <= {ALPHA:g})."
    size = f"the minimum detectable difference in {results.target.label} to {reference}"
    text = f"On {where}, {size} (one test, p <= {ALPHA:g}) is"
    if len(family) == 1:
        return f"{text} {sizes.low:.3f}."
    return (
        f"{text} {sizes.low:.3f} to {sizes.high:.3f}, depending on the arm; after correction for "
        f"{len(family)} comparisons it is larger."
    )


def _verdict(results: Results, arm: Arm, contrast: Contrast) -> str:
    """Returns the outcome of the swap test as a relative clause."""
    family, other = results.families[contrast], _name_other(results, arm, contrast)
    tested = family.tests.get(arm.name)
    if tested is None:
        twin = results.identical.get(arm.name)
        if twin == results.other_of(arm, contrast):
            return f"since it predicts the same classes as {other}"
        reason = "" if twin is None else f", since it is identical to {_name_twin(results, twin)}"
        return f"which is not tested{reason}"
    swap = tested.swap
    p = f"swap test {p_value(swap.p)}"
    if len(family) > 1:
        p += f", {p_value(tested.p_holm).removeprefix('p = ')} after Holm over {len(family)} comparisons"
    if swap.informative_sources == 0:
        return f"since it has the same counts as {other} in every source"
    if tested.p_holm <= ALPHA:
        return f"which is statistically significant ({p})"
    if swap.p <= ALPHA:
        return (
            "which is statistically significant in this comparison alone, but not after correction for "
            f"{len(family)} ({p})"
        )
    detectable = "no difference could be"
    if swap.min_detectable_difference is not None:
        detectable = f"the minimum detectable difference is {swap.min_detectable_difference:.3f}"
    return f"which is not statistically significant: {detectable} ({p})"


def name_reference(results: Results) -> str:
    """Returns the name of the reference in sentences."""
    return results.reference if results.origins else "the baseline"


def _name_other(results: Results, arm: Arm, contrast: Contrast, *, full: bool = False) -> str:
    """Returns the name of the arm that an arm is compared with, in full where a control is mentioned first."""
    control = results.control_for(arm)
    if contrast == "vs_baseline" or control is None:
        return name_reference(results)
    if not full:
        return "the control"
    averaged = f" that averages {count_range(control.members)} fits" if control.averages else ""
    return f"the control{averaged}, {control.name}"


def _describe_origin(results: Results, origin: Origin) -> str:
    arms = {arm.name: arm for arm in results.arms}
    if origin.chosen == results.reference:
        return f"{origin.name} advises the reference, {origin.chosen}."
    if origin.chosen is not None:
        return (
            f"{origin.chosen}, the arm that {origin.name} advises, "
            f"{compare_with_reference(results, arms[origin.chosen])}"
        )
    others = [name for name in origin.arms if name != results.reference]
    if not others:
        return f"{origin.name} has no other arm."
    return f"{others[0]} {compare_with_reference(results, arms[others[0]])}"


def _introduce(results: Results, best: Arm) -> str:
    """Returns the subject of the headline: the best strategy on validation, and whether it beats the references."""
    control = results.control_for(best)
    references = {"the baseline": results.arms[0]} | ({"the control": control} if control else {})
    unbeaten = [name for name, arm in references.items() if best.val_score <= arm.val_score]
    if unbeaten:
        return f"On validation no strategy beats {' or '.join(unbeaten)}; the best one, {best.name},"
    ties = [arm.name for arm in results.strategies[1:] if arm.val_score == best.val_score]
    tie = f" (tied with {', '.join(ties)})" if ties else ""
    return f"{best.name}, the best strategy on validation{tie},"


def _describe_references(results: Results) -> str:
    """Returns what tuning and longer training alone give, as sentences."""
    sentences = []
    if results.control is not None:
        interval = results.inference.against(results.control.name, results.reference).interval
        words = f" ({interval.low:+.3f} to {interval.high:+.3f})" if interval else ""
        gain = results.main_gain(results.control.name, results.reference)
        reached = results.main_score(results.control.name).mean
        sentences.append(
            f"Tuning alone gives {gain:+.3f}{words} over the baseline: the control, {results.control.name}, reaches "
            f"{reached:.3f}."
        )
    if results.to_the_end is not None:
        gain = results.main_gain(results.to_the_end.name, results.reference)
        reached = results.main_score(results.to_the_end.name).mean
        sentences.append(
            f"The recipe of the baseline reaches {reached:.3f} ({gain:+.3f}) if it is trained to the end, on training "
            "and validation landmarks."
        )
    return " ".join(sentences)


def _count_gains(results: Results) -> str:
    """Returns how many strategies score above their control and above the baseline."""
    scores = {arm.name: results.main_score(arm.name).mean for arm in results.arms}
    total = len(results.strategies)
    above_baseline = sum(scores[arm.name] > scores[results.reference] for arm in results.strategies)
    text = f"{above_baseline} of {total} strategies score above the baseline on the test split."
    if results.control is not None:
        others = {arm.name: results.other_of(arm, "vs_control") for arm in results.strategies}
        above = sum(other is not None and scores[name] > scores[other] for name, other in others.items())
        text = (
            f"{above} of {total} strategies score above their control on the test split, {above_baseline} above the "
            "baseline."
        )
    return text


def _describe_identical(results: Results) -> Iterator[str]:
    """Yields a sentence for each arm that strategies are identical to."""
    names: dict[str, list[str]] = {}
    for arm in results.strategies:
        if arm.name in results.identical:
            names.setdefault(results.identical[arm.name], []).append(arm.name)
    for twin, arms in names.items():
        are = "is" if len(arms) == 1 else "are"
        same = f"every {results.terms.landmark} gets the same class"
        yield f"{join_words(arms)} {are} identical to {_name_twin(results, twin)}: {same}."


def _name_twin(results: Results, twin: str) -> str:
    """Returns the name of an arm that others are identical to."""
    if twin == results.reference:
        return name_reference(results)
    is_control = results.control is not None and twin == results.control.name
    return "the control" if is_control else f"the control {twin}"


def caution(results: Results) -> str:
    """Returns what to bear in mind when reading the numbers."""
    seeds = {len(arm.seeds) for arm in results.arms}
    ranges = "Ranges are over seeds, confidence intervals over sources."
    if seeds == {1}:
        ranges = "Fitted with one seed, so without ranges."
    elif 1 in seeds:
        ranges += " Arms that were fitted with one seed have no range."
    parts = (
        ranges,
        describe_rank_correlation(results),
        *_describe_identical(results),
        _describe_untested(results),
        describe_resolution(results),
        _describe_reach(results),
        describe_limits(results),
    )
    return " ".join(text for text in parts if text)


def _describe_reach(results: Results) -> str:
    """Returns that small differences can't be detected in a nested cross-validation; empty if nothing is tested."""
    if results.outer_folds is None or not any(family.min_detectable_difference for family in results.families.values()):
        return ""
    return "On these sources, smaller differences are not distinguishable from chance."


def _describe_untested(results: Results) -> str:
    """Returns which strategies have no control that averages as many fits; empty if all have one."""
    missing = [arm.name for arm in results.strategies if results.control and results.control_for(arm) is None]
    if not missing:
        return ""
    verb = "averages" if len(missing) == 1 else "average"
    return f"No control averages as many fits as {join_words(missing)} {verb}, so no test against the control is given."


def describe_rank_correlation(results: Results) -> str:
    """Returns how well inner scores predict the order of the arms by outer score; empty for a comparison."""
    correlation, terms = results.rank_correlation, results.terms
    if correlation is None:
        return ""
    arms = f"{correlation.arms} distinct arm{'' if correlation.arms == 1 else 's'}"
    if correlation.rho is None or correlation.p is None:
        return f"No rank correlation between {terms.inner} and {terms.outer} scores can be given for {arms}."
    if correlation.p > ALPHA:
        meaning = (
            f"which chance alone could give, so a higher {terms.inner} score is no evidence of a higher {terms.outer} "
            "score"
        )
    elif correlation.rho > 0:
        meaning = f"so arms with higher {terms.inner} scores tend to have higher {terms.outer} scores"
    else:
        meaning = f"so arms with higher {terms.inner} scores tend to have lower {terms.outer} scores"
    return (
        f"{terms.inner.capitalize()} and {terms.outer} {results.target.label} of {arms} have the rank correlation "
        f"{correlation.rho:+.2f} (Spearman, {p_value(correlation.p)}), {meaning}."
    )


def describe_limits(results: Results) -> str:
    """Returns what no report on these landmarks can say: classes of few sources, absent ones, capped training."""
    few = [f"{results.classes[k]} ({n})" for k, n in enumerate(results.sources) if 0 < n < MIN_SOURCES]
    absent = [results.classes[k] for k, n in enumerate(results.support) if n == 0]
    capped = [
        f"{arm.name} ({sum(map(sum, arm.capped))} of {sum(map(len, arm.capped))})"
        for arm in results.ordered
        if any(map(any, arm.capped))
    ]
    text = "Images of one source observation are not independent, so the uncertainty of a class is over its sources."
    if not results.has_sources:
        text = NO_SOURCES
    if few:
        source = results.terms.source
        text += f" Classes with fewer than six {source}s, for which no interval can be estimated: {', '.join(few)}."
    if absent:
        text += f" Classes without a {results.terms.landmark}, which count as F1 = 0 in macro F1: {', '.join(absent)}."
    if len(capped) > _MAX_NAMED:
        capped = [*capped[:_MAX_NAMED], f"and {len(capped) - _MAX_NAMED} more arms"]
    if capped:
        text += f" Fits whose best epoch is the last one allowed, and which might gain from more: {', '.join(capped)}."
    return text
