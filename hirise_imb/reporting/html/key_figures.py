"""The key figures at the top of a page."""

from __future__ import annotations

from collections.abc import Mapping

from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.metrics.registry import label_of
from hirise_imb.reporting.formatting import MISSING, p_digits, p_value, plural, score, signed
from hirise_imb.reporting.html.parts import KeyFigure, Span, breakable, signed_interval
from hirise_imb.reporting.results import Contrast
from hirise_imb.reporting.summary.records import AgainstRecord, ArmRecord, BaselineContent, StudyContent


def study_keys(content: StudyContent, best: ArmRecord, arms_by_name: Mapping[str, ArmRecord]) -> tuple[KeyFigure, ...]:
    """Returns the main result as key figures: the best strategy on validation, against its control and the baseline."""
    contrasts: list[tuple[Contrast, str, AgainstRecord]] = [("vs_baseline", "baseline", best["vs_baseline"])]
    if best["vs_control"] is not None:
        contrasts.insert(0, ("vs_control", "control", best["vs_control"]))
    others = [f"{name} {score(arms_by_name[a['arm']]['scores']['macro_f1']['mean'])}" for _, name, a in contrasts]
    primary, name, against = contrasts[0]
    return (
        KeyFigure("Best strategy on validation", breakable(best["name"]), best["summary"], first=True),
        KeyFigure("Macro F1 on the test split", score(best["scores"]["macro_f1"]["mean"]), ", ".join(others)),
        *(_difference_key(content, *contrast) for contrast in contrasts),
        _detectable_key(content, primary, name, against),
    )


def nested_keys(
    content: StudyContent, arms_by_name: Mapping[str, ArmRecord], contrast: Contrast
) -> tuple[KeyFigure, ...]:
    """Returns the main result of a nested cross-validation: how many strategies beat the control, and the best one."""
    name, inference = ("control" if contrast == "vs_control" else "baseline"), content["inference"]
    tested = {
        arm["name"]: against
        for arm in content["arms"]
        if arm["role"] == "strategy" and (against := arm[contrast]) is not None and against["test"] is not None
    }
    if content["kind"] == "comparison" or not tested:
        return ()
    gains = {arm: against["scores"]["macro_f1"] for arm, against in tested.items()}
    better = [a for a, one in tested.items() if gains[a] > 0 and one["test"] and one["test"]["p_holm"] <= ALPHA]
    best = max(tested, key=lambda arm: gains[arm])
    other = arms_by_name[content["control"] or content["reference"]]
    base = score(arms_by_name[content["reference"]]["scores"]["macro_f1"]["mean"])
    sizes = inference[contrast]["resolvable"]
    chosen = arms_by_name[content["chosen"] or best]
    n_tests = plural(inference[contrast]["tests"], "comparison")
    return (
        KeyFigure(
            f"Strategies that beat the {name}",
            f"{len(better)} of {sum(arm['role'] == 'strategy' for arm in content['arms'])}",
            f"p <= {inference['alpha']:g} after Holm over {n_tests}",
            first=True,
        ),
        _difference_key(content, contrast, name, tested[best], f"Highest difference: {best}"),
        KeyFigure(
            f"Macro F1 of the {name}",
            score(other["scores"]["macro_f1"]["mean"]),
            f"{other['name']}; baseline {base}",
        ),
        KeyFigure(
            "Best by inner score",
            breakable(chosen["name"]),
            f"outer score {score(chosen['scores']['macro_f1']['mean'])}, {chosen['summary']}",
        ),
        KeyFigure(
            "Minimum detectable difference",
            MISSING if sizes is None else score(sizes["low"]),
            "no difference could be statistically significant"
            if sizes is None
            else f"to the {name}, up to {score(sizes['high'])}, depending on the arm; at p <= {inference['alpha']:g} "
            "in one comparison, larger after correction",
        ),
    )


def _difference_key(
    content: StudyContent, contrast: Contrast, name: str, against: AgainstRecord, title: str = ""
) -> KeyFigure:
    """Returns the difference of the best strategy from another arm, with its interval and the swap test."""
    inference, gain, test = content["inference"], against["scores"]["macro_f1"], against["test"]
    interval, span = against["interval"], None
    if interval is not None:
        between = f"95 % interval {signed_interval(interval)} over {inference['sources']} sources"
        span = Span.of(interval, gain, min(0, interval["low"]), max(0, interval["high"]))
    elif inference["sources"] < inference["least_sources"]:
        between = f"no interval from {plural(inference['sources'], 'source')}"
    else:
        between = "no interval: all resamples are equal"
    tested = "not tested"
    if test is not None:
        n_tests = plural(inference[contrast]["tests"], "comparison")
        tested = f"swap test {p_value(test['p'])}, {p_digits(test['p_holm'])} after Holm over {n_tests}"
    return KeyFigure(title or f"Difference to the {name}", signed(gain), f"{between}; {tested}", span=span)


def _detectable_key(content: StudyContent, contrast: Contrast, name: str, against: AgainstRecord) -> KeyFigure:
    """Returns the minimum detectable difference of the best strategy in the primary contrast."""
    inference, test = content["inference"], against["test"]
    if test is None:
        condition = "not tested"
    elif test["resolvable"] is None:
        condition = f"to the {name}: no difference could be statistically significant"
    else:
        condition = f"to the {name}, at p <= {inference['alpha']}"
        if (family := inference[contrast]["tests"]) > 1:
            condition += f" in this comparison alone; larger as one of {family}"
    return KeyFigure("Minimum detectable difference", score(test["resolvable"] if test else None), condition)


def baseline_keys(content: BaselineContent) -> tuple[KeyFigure, ...]:
    """Returns the scores of the complete table, and how many published scores lie in the shuffled range."""
    keys = []
    for row in content["comparison"]:
        if row["class"] != "all" or row["metric"] == "weighted_f1":
            continue
        aside = f"with shuffled labels {score(row['shuffled'])}"
        if row["shuffled_low"] is not None and row["shuffled_high"] is not None:
            aside += f" ({score(row['shuffled_low'])} to {score(row['shuffled_high'])})"
        term = label_of(row["metric"])
        term = f"{term[0].upper()}{term[1:]}, aligned"
        keys.append(KeyFigure(term, score(row["aligned"]), aside, first=row["metric"] == "macro_f1"))
    in_range = [row["published_in_range"] for row in content["comparison"] if row["published_in_range"] is not None]
    aside = "95 % range of this model's predictions, paired with shuffled labels"
    keys.append(KeyFigure("Published scores in the shuffled range", f"{sum(in_range)} of {len(in_range)}", aside))
    return tuple(keys)
