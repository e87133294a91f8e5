"""The protocol of a report in sentences: how recipes were selected, fitted and compared, derived from the arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hirise_imb.metrics.bootstrap import MIN_SOURCES, N_RESAMPLES, UNDRAWN
from hirise_imb.reporting.formatting import join_words, percent, plural
from hirise_imb.reporting.narrative import name_reference
from hirise_imb.reporting.nested_narrative import OVERLAP
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.terms import Terms

_UNDRAWN = {
    "others_mean": "counts as the mean of the drawn classes",
    "own_f1": "keeps its F1 {whole}",
}
"""Descriptions of the rules for classes of which a resample draws no source."""


def protocol(results: Results) -> list[str]:
    """Returns how recipes were selected and what all arms have in common."""
    sentences = _comparison_protocol(results) if results.origins else _study_protocol(results)
    return [*sentences, _describe_intervals(results), _describe_tests(results)]


def _study_protocol(results: Results) -> Iterator[str]:
    with_search = [arm for arm in results.ordered if arm.has_search]
    final = [arm for arm in results.ordered if arm.role != "baseline"]
    yield from _describe_outer_folds(results)
    yield _describe_validation(results)
    if with_search:
        yield _describe_budget(with_search, results.terms)
        yield from _describe_spaces(results, with_search)
    if any(arm.has_epochs for arm in final):
        yield (
            "The number of epochs is cross-fitted: the landmarks of a fold are scored at the epoch that is best on all "
            "other folds, so that no fold selects the epoch at which it is scored."
        )
    if scheduled := [arm.name for arm in final if arm.has_epochs and arm.selections[0].recipe["monitor"] == "none"]:
        yield f"The schedules of {join_words(scheduled)} are trained to their end instead."
    if any(arm.role == "strategy" for arm in final):
        yield (
            "All training images of a fold are used by every head, trained or closed-form, with all variants of a "
            "landmark; a landmark is scored on its canonical image alone."
        )
    yield from _describe_fits(results, final)
    yield from _describe_averaging(results)


def _describe_validation(results: Results) -> str:
    seeds = "mean over the seeds"
    if results.trial_seeds is not None:
        seeds = f"mean over {plural(results.trial_seeds, 'seed')}"
        if results.trial_seeds > 1:
            seeds += ", each with its own assignment of sources to folds"
    label = results.target.label
    if results.outer_folds is None:
        text = (
            f"The validation score of every arm is {label} in a cross-validation over the training and validation "
            f"splits with folds by source, {seeds}."
        )
    else:
        text = (
            f"The inner score of every arm is {label} in a cross-validation over the landmarks outside an outer fold "
            f"with folds by source, {seeds} and the outer folds; its outer score is {label} of the pooled predictions."
        )
    if any(arm.has_search for arm in results.ordered):
        text += (
            " The recipe of a search is that of its best trial. Trials were scored in the same way with other seeds "
            "and other folds, so that the luck of the best trial raises no score of an arm."
        )
    return text


def _describe_outer_folds(results: Results) -> Iterator[str]:
    """Yields how a nested cross-validation divides the sources, and what happens inside each outer fold."""
    if results.outer_folds is None:
        return
    n_folds = int(results.outer_folds["fold"].max())
    again = ""
    if results.repeats > 1:
        again = f", in {results.repeats} repeats with other divisions, whose scores are averaged"
    yield (
        f"This is a nested cross-validation. The {len(results.test):,} landmarks of all splits are divided into "
        f"{n_folds} outer folds of whole sources ({results.inference.total}), balanced by class{again}. For each outer "
        "fold, everything is done on all other outer folds alone: searches, choices, numbers of epochs, class priors, "
        "post-hoc adjustments, temperatures, projections and synthetic rows. Then the fold is predicted once. The "
        "predictions of all folds are pooled, so each score is one of all landmarks, each predicted by models that "
        "never saw its source."
    )
    yield OVERLAP


def _describe_budget(arms: Sequence[Arm], terms: Terms) -> str:
    counts = {arm.name: max(len(selection.trials) for selection in arm.selections) for arm in arms}
    most = max(counts.values())
    if min(counts.values()) == most:
        return f"Every search has {plural(most, 'finished trial')}{terms.division}."
    shorter = [arm for arm in arms if counts[arm.name] < most]
    listed = join_words([f"{arm.name} ({counts[arm.name]})" for arm in shorter])
    text = (
        f"Searches have up to {most} finished trials{terms.division}; fewer have {listed}. A search ends early when "
        "all distinct settings of its hyperparameters have been tried."
    )
    if fine_tuned := [arm.name for arm in shorter if arm.selections[0].recipe["cut"] != "top"]:
        text += f" The limit of searches that fine-tune the backbone is lower: {join_words(fine_tuned)}."
    return text


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


def _describe_fits(results: Results, final: Sequence[Arm]) -> Iterator[str]:
    terms = results.terms
    if results.arms[0].has_epochs:
        yield _describe_baseline(results)
    if results.to_the_end is not None:
        yield (
            f"{results.to_the_end.name} has the recipe of the baseline without a limit on the epochs that binds, and "
            "is fitted like a selected recipe: its difference from the baseline is due to longer training on more "
            "landmarks."
        )
    if final:
        yield (
            f"All recipes but the published baseline are fitted on {terms.pool}, with "
            f"{_describe_seeds(results, final[0])}, for the number of epochs that is best in the cross-validation; "
            "nothing stops these fits early. Temperatures and post-hoc adjustments are fitted on the predictions for "
            f"{terms.held_out}."
        )
    text = (
        f"These fits alone are scored {terms.where}, with one canonical image a landmark; no trial used "
        f"{'it' if results.outer_folds is None else 'the fold that it is scored on'}. Every score can be recomputed "
        "from predictions/."
    )
    if "test_access" in results.environment:
        text += " How often and when it was predicted is in environment.json."
    yield text


def _describe_baseline(results: Results) -> str:
    recipe, seeds = results.arms[0].selections[0].recipe, _describe_seeds(results, results.arms[0])
    monitor = {"val_loss": "validation loss", "val_macro_f1": "validation macro F1"}[recipe["monitor"]]
    limit = f"at most {plural(recipe['max_epochs'], 'epoch')}, with {seeds}"
    if results.outer_folds is None:
        return (
            f"The baseline is fitted as published: on the training split, with early stopping on {monitor} of the "
            f"given validation split and {limit}."
        )
    return (
        f"The baseline is the published recipe without a search: fitted on all other outer folds but one inner fold, "
        f"with early stopping on {monitor} of that fold and {limit}."
    )


def _describe_seeds(results: Results, arm: Arm) -> str:
    each = " in each repeat" if results.repeats > 1 else ""
    return plural(len(arm.seeds) // results.repeats, "seed") + each


def _describe_averaging(results: Results) -> Iterator[str]:
    """Yields which strategies average members, and the control that each group is compared with."""
    groups: dict[str, list[str]] = {}
    for arm in results.strategies:
        control = results.control_for(arm)
        if arm.averages and control is not None:
            groups.setdefault(control.name, []).append(arm.name)
    for control_name, names in groups.items():
        verb, are = ("averages", "is") if len(names) == 1 else ("average", "are")
        yield (
            f"{join_words(names)} {verb} several fits or heads in each prediction and {are} compared with "
            f"{control_name}, a control that averages as many fits, because averaging alone raises scores."
        )


def _comparison_protocol(results: Results) -> Iterator[str]:
    terms = results.terms
    folds, own = ("", "validation landmarks") if results.outer_folds is None else (" and outer folds", "inner folds")
    yield (
        f"All arms are compared with {results.reference} on the same {len(results.test):,} {terms.landmark}s, with the "
        f"same classes{folds}; reports that were tested on other landmarks are refused."
    )
    yield (
        f"Each report selected its recipes on its own {own}, so {terms.inner} scores can be compared only within a "
        "report. The protocol of each, and its tests against its own control, are in its own report."
    )


def _describe_intervals(results: Results) -> str:
    complete, terms = results.inference.resamples[results.reference].complete_share, results.terms
    return (
        f"Confidence intervals of {results.target.label} come from {N_RESAMPLES:,} resamples of the "
        f"{plural(results.inference.total, terms.source)}, the same ones for all arms, and of the fits of each arm "
        f"(expanded percentiles, Hesterberg 2015). {percent(complete)} % of the resamples draw {terms.drawn}; in "
        f"the others, a class without a drawn source {_UNDRAWN[UNDRAWN].format(whole=terms.whole)}. A class has an "
        f"interval only if it has {MIN_SOURCES} sources or more."
    )


def _describe_tests(results: Results) -> str:
    families = [f"with {name_reference(results)}"]
    if results.control is not None:
        families.insert(0, "with the control that averages as many fits, which is the primary contrast,")
    text = (
        f"Arms are compared {' and '.join(families)} by the source-level swap test on {results.target.label}, "
        f"two-sided, with Holm's (1979) correction{' in each of the two families' if len(families) > 1 else ''}."
    )
    if results.identical:
        text += (
            " An arm that predicts the same class as its control or as the baseline for every "
            f"{results.terms.landmark} and seed is not tested, and not counted in a correction."
        )
    return f"{text} Differences of single classes are descriptive: they are not tested."
