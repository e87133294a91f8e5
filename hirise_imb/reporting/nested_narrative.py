"""The headline of a nested cross-validation: which of all strategies beat the control, in which classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.formatting import join_words, p_digits, p_value, plural, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Contrast, Results

OVERLAP = (
    "A landmark of the official test split is test data in its own outer fold and training data in all others, so "
    "scores on the given split must not be read as confirmation of a choice made from the nested cross-validation."
)
"""Why the given split can't confirm what a nested cross-validation finds."""

_MAX_NAMED = 3
"""Number of strategies and of classes that a sentence names at most."""


def nested_headline(results: Results) -> str:
    """Returns which strategies beat the control, what the best of them does to each class, and what tuning gives.

    Without a control, the strategies are compared with the baseline.
    """
    if not results.strategies:
        base = results.main_score(results.reference).mean
        sentences = [
            f"No strategy gave a result here. The baseline reaches {results.target.label} {base:.3f} in the outer "
            "folds."
        ]
    else:
        contrast = results.contrasts[0]
        leader = next(iter(rank_strategies(results, contrast)), None)
        sentences = [_describe_verdict(results, contrast, leader)]
        if leader is not None:
            sentences.append(_describe_classes(results, leader, contrast))
    return " ".join([*sentences, *_describe_tuning(results)])


def rank_strategies(results: Results, contrast: Contrast, *, sign: int = 0) -> list[Arm]:
    """Returns the tested strategies, the largest difference first.

    Args:
        results: results of a study.
        contrast: what they are compared with.
        sign: 1 or -1 for those whose difference is significant after correction and has this sign; 0 for all.
    """
    tests = results.families[contrast].tests
    arms = [arm for arm in results.strategies if arm.name in tests]
    if sign:
        arms = [a for a in arms if tests[a.name].p_holm <= ALPHA and sign * _gain(results, a, contrast) > 0]
    return sorted(arms, key=lambda arm: -abs(_gain(results, arm, contrast)) if sign else -_gain(results, arm, contrast))


def _gain(results: Results, arm: Arm, contrast: Contrast) -> float:
    other = results.other_of(arm, contrast)
    assert other is not None
    return results.main_gain(arm.name, other)


def _describe_verdict(results: Results, contrast: Contrast, leader: Arm | None) -> str:
    """Returns which strategies differ significantly from what they are compared with."""
    other, n_tests, total = _name_other(results, contrast), len(results.families[contrast]), len(results.strategies)
    start = f"In a nested cross-validation over {plural(results.inference.total, 'source')}, "
    if leader is None:
        return f"{start}no strategy could be tested against {other}."
    after = f" after correction for {n_tests} comparisons" if n_tests > 1 else ""
    better, worse = (rank_strategies(results, contrast, sign=sign) for sign in (1, -1))
    if better:
        beat = "beats" if len(better) == 1 else "beat"
        subject = f"{len(better)} of {total} strategies" if total > 1 else "the only strategy"
        text = (
            f"{start}{subject} {beat} {other} by a difference that is statistically significant{after}: "
            f"{_list_arms(results, better, contrast)}."
        )
    else:
        none = f"none of {total} strategies beats" if total > 1 else "the only strategy does not beat"
        text = (
            f"{start}{none} {other} by a difference that is statistically significant{after}. The highest difference "
            f"is that of {_list_arms(results, [leader], contrast, by=', ')}."
        )
    if worse:
        text += f" Significantly worse {'is' if len(worse) == 1 else 'are'} {_list_arms(results, worse, contrast)}."
    return text


def _list_arms(results: Results, arms: Sequence[Arm], contrast: Contrast, by: str = " by ") -> str:
    """Returns arms with their differences, how sure they are, and the number of those that are not named."""
    texts = []
    for arm in arms[:_MAX_NAMED]:
        other, test = results.other_of(arm, contrast), results.families[contrast].tests[arm.name]
        assert other is not None
        interval = results.inference.against(arm.name, other).interval
        sure = f"95 % confidence interval {signed(interval.low)} to {signed(interval.high)}, " if interval else ""
        p = p_value(test.swap.p)
        if len(results.families[contrast]) > 1:
            p += f", adjusted {p_digits(test.p_holm)}"
        control = results.control
        over = f" over {other}" if contrast == "vs_control" and control and other != control.name else ""
        texts.append(f"{arm.name}{by}{signed(_gain(results, arm, contrast))}{over} ({sure}{p})")
    if len(arms) > _MAX_NAMED:
        texts.append(f"{len(arms) - _MAX_NAMED} more")
    return join_words(texts)


def _name_other(results: Results, contrast: Contrast) -> str:
    control, label = results.control, results.target.label
    if contrast == "vs_control" and control is not None:
        return f"the tuned control ({control.name}, {label} {results.main_score(control.name).mean:.3f})"
    return f"the baseline ({label} {results.main_score(results.reference).mean:.3f})"


def _describe_classes(results: Results, arm: Arm, contrast: Contrast) -> str:
    """Returns which classes gain and lose with an arm, and the cost to the majority class."""
    other, majority = results.other_of(arm, contrast), results.classes.majority_id
    assert other is not None
    gains = results.difference(arm.name, "f1", other)
    intervals = results.inference.class_differences(arm.name, other)
    rise, fall = (
        sorted(
            (k for k, i in enumerate(intervals) if k != majority and i and (i.low > 0 if up else i.high < 0)),
            key=lambda k: -abs(gains[k]),
        )
        for up in (True, False)
    )

    def list_classes(labels: Sequence[int]) -> str:
        texts = [f"{results.classes[k]} ({signed(gains[k])})" for k in labels[:_MAX_NAMED]]
        return join_words([*texts, *([f"{len(labels) - _MAX_NAMED} more"] if len(labels) > _MAX_NAMED else [])])

    rare = "class" if majority is None else "rare class"
    changes = [f"{verb} in {list_classes(k)}" for verb, k in (("rises", rise), ("falls", fall)) if k]
    text = (
        f"With {arm.name}, F1 {' and '.join(changes)}"
        if changes
        else f"With {arm.name}, no {rare} gains or loses clearly"
    )
    text += f" (95 % intervals {'exclude' if changes else 'include'} 0)"
    if majority is not None:
        interval = intervals[majority]
        span = f" ({signed(interval.low)} to {signed(interval.high)})" if interval else ""
        text += f"; {results.classes[majority]}, the majority class, changes by {signed(gains[majority])}{span}"
    return f"{text}."


def _describe_tuning(results: Results) -> Iterator[str]:
    """Yields what the control gains over the published recipe."""
    if results.control is not None:
        gain = results.main_gain(results.control.name, results.reference)
        interval = results.inference.against(results.control.name, results.reference).interval
        span = f" ({signed(interval.low)} to {signed(interval.high)})" if interval else ""
        base = results.main_score(results.reference).mean
        yield f"Tuning alone gives {signed(gain)}{span} over the published recipe, which reaches {base:.3f}."
