"""The verdict of a report: the answer in one sentence, which arm to choose, and the reasons for the uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.formatting import join_words, p_value, plural, score, signed
from hirise_imb.reporting.nested_narrative import rank_strategies
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Contrast, Results

Outcome = Literal["clear", "inconclusive", "worse"]
"""Whether a strategy beats the control significantly, none does, or the selected one is significantly worse."""


class Card(NamedTuple):
    """One reason why the results are as certain as they are."""

    title: str
    text: str
    """One or two sentences."""


@dataclass(frozen=True)
class Verdict:
    """The answer that a report gives."""

    outcome: Outcome
    headline: str
    """The answer in a sentence of at most 15 words, apart from the names of arms."""
    advice: str
    """Which arm to choose, and its difference from the control, in one line; empty if nothing was compared."""
    choice: str | None
    """The arm that the advice names; None in a comparison of reports."""
    cards: tuple[Card, ...]
    """The reasons that apply, the most important first."""


def verdict(results: Results) -> Verdict:
    """Returns the verdict on a study or a comparison of reports.

    A strategy beats the control if its difference is positive and significant in the swap test after correction for
    all strategies. The choice is made by validation (or inner) score: among the strategies that beat the control if
    there are any, otherwise among all. It is the control itself if no strategy has a higher validation score, or if the
    best one does not score higher than its control on the tested landmarks either: a remedy that gains nothing is not
    worth its cost.
    """
    contrast = results.contrasts[0]
    better, worse = (rank_strategies(results, contrast, sign=sign) for sign in (1, -1))
    chosen = results.chosen
    outcome: Outcome = "inconclusive"
    if better:
        outcome = "clear"
    elif chosen in worse or (results.origins and worse):
        outcome = "worse"
    headline = _headline(results, contrast, better, worse)
    if results.origins:
        return Verdict(outcome, headline, _describe_largest(results, contrast), None, tuple(_cards(results, None)))
    choice = _choose(results, better)
    advice = _advise(results, outcome, choice)
    return Verdict(outcome, headline, advice, choice.name, tuple(_cards(results, choice)))


def _headline(results: Results, contrast: Contrast, better: list[Arm], worse: list[Arm]) -> str:
    total = len(results.strategies)
    noun = "arms" if results.origins else "strategies"
    other = _name_other(results, contrast)
    if not results.strategies:
        return f"No strategy was compared with {other}."
    if not results.families[contrast].tests:
        return f"No strategy predicts anything else than {other}." if results.identical else "Nothing could be tested."
    if len(better) == 1:
        return f"{better[0].name} reliably beats {other}."
    if better:
        return f"{len(better)} of {total} {noun} reliably beat {other}."
    if results.chosen in worse:
        return f"{results.chosen.name}, the best strategy {results.terms.best}, is reliably worse than {other}."
    if results.origins and worse:
        return f"No arm reliably beats {other}, and {len(worse)} of {total} are reliably worse."
    if results.origins:
        return f"No arm reliably beats {other}."
    subject = "No strategy reliably beats" if total > 1 else f"{results.strategies[0].name} does not reliably beat"
    return f"{subject} {other}{_tuning(results)}."


def _name_other(results: Results, contrast: Contrast) -> str:
    if contrast == "vs_control":
        return "the tuned control"
    return results.reference if results.origins else "the baseline"


def _tuning(results: Results) -> str:
    """Returns that the control beats the baseline, as the end of a sentence; empty if it does not, or without one."""
    control = results.control
    test = results.families["vs_baseline"].tests.get(control.name) if control else None
    if control is None or test is None or test.p_holm > ALPHA:
        return ""
    gain = results.main_gain(control.name, results.reference)
    return ", which beats the published recipe" if gain > 0 else ", which is worse than the published recipe"


def _choose(results: Results, better: list[Arm]) -> Arm:
    """Returns the arm to choose."""
    if better:
        return max(better, key=lambda arm: arm.val_score)
    best = results.chosen
    references = [results.arms[0], *([results.control] if results.control else [])]
    if best is not None and not _is_refuted(results, best):
        own = results.control_for(best)
        others = [*references, *([own] if own else [])]
        if best.val_score > max(arm.val_score for arm in others):
            return best
    return max(references, key=lambda arm: arm.val_score)


def _is_refuted(results: Results, arm: Arm) -> bool:
    """Checks whether a strategy does not score higher than the control on the tested landmarks."""
    control = results.control_for(arm)
    other = control.name if control else results.reference
    return results.main_gain(arm.name, other) <= 0


def _advise(results: Results, outcome: Outcome, choice: Arm) -> str:
    start = "Choose" if outcome == "clear" else "If you must choose:"
    if choice.role == "strategy":
        why = "" if outcome == "clear" else f" (best {results.terms.best})"
        difference = _describe_difference(results, choice, _contrast_of(results, choice))
        return f"{start} {choice.name}{why}, {difference}."
    name = "the baseline" if choice.name == results.reference else f"{choice.name}, the control"
    best = results.chosen
    if best is not None and best.val_score > choice.val_score and _is_refuted(results, best):
        difference = _describe_difference(results, best, _contrast_of(results, best))
        return f"{start} {name}. The best strategy {results.terms.best}, {best.name}, has {difference}."
    return f"{start} {name}: no strategy has a higher {results.terms.inner} score."


def _contrast_of(results: Results, arm: Arm) -> Contrast:
    return "vs_control" if results.control_for(arm) else "vs_baseline"


def _describe_largest(results: Results, contrast: Contrast) -> str:
    """Returns the largest difference in a comparison of reports; empty if nothing is tested."""
    leader = next(iter(rank_strategies(results, contrast)), None)
    if leader is None:
        return ""
    return f"Largest difference: {leader.name}, {_describe_difference(results, leader, contrast)}."


def _describe_difference(results: Results, arm: Arm, contrast: Contrast) -> str:
    other = results.other_of(arm, contrast)
    assert other is not None
    interval = results.inference.against(arm.name, other).interval
    span = f" (95 % CI {signed(interval.low)} to {signed(interval.high)})" if interval else ""
    if contrast == "vs_baseline":
        against = results.reference if results.origins else "the baseline"
    else:
        against = "a control that averages as many fits" if arm.averages else "the control"
    return f"{signed(results.main_gain(arm.name, other))} {results.target.label}{span} against {against}"


def _cards(results: Results, choice: Arm | None) -> Iterator[Card]:
    """Yields the reasons that apply."""
    yield from _card_of_classes(results)
    yield from _card_of_power(results, choice)
    yield from _card_of_selection(results)
    yield from _card_of_seeds(results)
    yield from _card_of_cap(results)


def _card_of_classes(results: Results) -> Iterator[Card]:
    """Yields which classes no arm can be scored on with any certainty, and why."""
    sentences = []
    support, sources = results.support, results.sources
    if not results.has_sources:
        return
    if few := [k for k, n in enumerate(sources) if 0 < n < MIN_SOURCES]:
        named = join_words([f"{results.classes[k]} ({support[k]} from {sources[k]})" for k in few])
        sentences.append(f"Landmarks from fewer than {MIN_SOURCES} sources, too few for an interval: {named}.")
    if absent := [results.classes[k] for k, n in enumerate(support) if n == 0]:
        sentences.append(f"No {results.terms.landmark}, so F1 counts as 0: {join_words(absent)}.")
    never = [
        results.classes[k]
        for k, n in enumerate(support)
        if n and all(results.per_class(arm.name, "f1")[k].high == 0 for arm in results.arms)
    ]
    if never:
        sentences.append(f"Never found by any arm: {join_words(never)}.")
    if sentences:
        yield Card("Classes with too little data", " ".join(sentences))


def _card_of_power(results: Results, choice: Arm | None) -> Iterator[Card]:
    """Yields what the correction for many comparisons changes, and which differences can't be detected."""
    contrast = results.contrasts[0]
    family = results.families[contrast]
    if not family.tests:
        return
    other = _name_other(results, contrast)
    sizes, sentences = family.min_detectable_difference, []
    test = family.tests.get(choice.name) if choice else None
    if choice and test and test.swap.p <= ALPHA < test.p_holm:
        sentences.append(
            f"{choice.name} by itself has {p_value(test.swap.p)}, but {len(family)} strategies were compared: "
            f"{p_value(test.p_holm)} after Holm correction."
        )
    where = plural(results.inference.total, results.terms.source)
    if sizes is None:
        sentences.append(f"On {where} no difference from {other} could be statistically significant.")
    else:
        size = score(sizes.low) if sizes.low == sizes.high else f"{score(sizes.low)} to {score(sizes.high)}"
        by_arm = "" if sizes.low == sizes.high else ", depending on the strategy"
        sentences.append(f"On {where} the minimum detectable difference from {other} is {size}{by_arm}.")
    yield Card("What can be detected", " ".join(sentences))


def _card_of_selection(results: Results) -> Iterator[Card]:
    """Yields what the selected strategy gained where it was selected, and lost on unseen landmarks."""
    best, terms = results.chosen, results.terms
    control = results.control_for(best) if best else None
    if best is None or control is None:
        return
    inner = best.val_score - control.val_score
    outer = results.main_gain(best.name, control.name)
    if inner > 0 and outer < inner:
        yield Card(
            f"Gain {terms.best}, less {terms.where}",
            f"{best.name} was selected with {signed(inner)} over its control {terms.best}; {terms.where} it has "
            f"{signed(outer)}.",
        )


def _card_of_seeds(results: Results) -> Iterator[Card]:
    """Yields how far macro F1 of the control, or else the baseline, moves if only the seed changes."""
    arm = results.control or results.arms[0]
    spread = results.main_score(arm.name)
    if len(arm.seeds) > 1 and spread.high > spread.low:
        name = "the control" if results.control else "the baseline"
        yield Card(
            "What seeds alone change",
            f"The same recipe of {name}, trained with {len(arm.seeds)} seeds, scores {score(spread.low)} to "
            f"{score(spread.high)}: a range of {score(spread.high - spread.low)}.",
        )


def _card_of_cap(results: Results) -> Iterator[Card]:
    """Yields that the baseline was still improving when its last epoch ended, and what longer training gives."""
    base = results.arms[0]
    capped, fits = sum(map(sum, base.capped)), sum(map(len, base.capped))
    if not capped or results.origins:
        return
    text = f"In {capped} of {fits} fits of the baseline, the best epoch is the last one allowed."
    if (longer := results.to_the_end) is not None:
        gain = results.main_gain(longer.name, base.name)
        text += f" Trained to the end, on training and validation landmarks, its recipe has {signed(gain)}."
    yield Card("The baseline stops early", text)
