"""What a search tried: the score of each trial against each hyperparameter, and the importance of hyperparameters."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.reporting import search_summary
from hirise_imb.reporting.figures.style import BLUE, ORANGE, SLATE, add_hover_text, figure, write_head
from hirise_imb.reporting.formatting import plural
from hirise_imb.reporting.records import Arm, Selection
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
"""Most panels in a row."""
_MIN_TRIALS = 3
"""Fewest complete trials of a search that is drawn."""
_MIN_TRIALS_OF_IMPORTANCE = 10
"""Fewest complete trials of a search from which importance is estimated."""
_MOST_CHARACTERS = 28
"""Most characters of the names of all choices that have room next to each other."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BEST_SHARE = 0.25
"""Share of the trials that importance tells from the others: with the usual tenth, it would be one trial of a dozen."""


def table(arm: Arm) -> pd.DataFrame:
    """Returns a row for each complete trial and each of its hyperparameters.

    Columns: division, trial (from 1), hyperparameter, setting, value (validation score), difference (value minus the
    mean of its search), chosen (whether the search chose the trial) and importance (from 0 to 1, mean over the searches
    with enough trials; empty if there are none). A hyperparameter with a single setting has no rows.
    """
    rows = []
    for selection in arm.selections:
        values = search_summary.values(selection)
        if not np.isfinite(values).any():
            continue
        mean, best = float(np.nanmean(values)), int(np.nanargmax(values))
        for place in np.flatnonzero(np.isfinite(values)).tolist():
            value = float(values[place])
            for name, setting in selection.trials[place].get("params", {}).items():
                rows.append((selection.division, place + 1, name, setting, value, value - mean, place == best))
    columns = ["division", "trial", "hyperparameter", "setting", "value", "difference", "chosen"]
    data = pd.DataFrame(rows, columns=columns)
    data = data[data["hyperparameter"].isin(_names(arm))].reset_index(drop=True)
    return data.assign(importance=data["hyperparameter"].map(importance(arm)).astype(float))


def can_be_drawn(arm: Arm) -> bool:
    """Checks whether a search of an arm has a few complete trials with different settings."""
    complete = [int(np.isfinite(search_summary.values(one)).sum()) for one in arm.selections]
    return max(complete) >= _MIN_TRIALS and bool(_names(arm))


def _names(arm: Arm) -> list[str]:
    """Returns the hyperparameters with several settings; a study definition may fix others."""
    settings: dict[str, set[str | float | int]] = {}
    for selection in arm.selections:
        for trial, value in zip(selection.trials, search_summary.values(selection).tolist(), strict=True):
            for name, setting in trial.get("params", {}).items() if np.isfinite(value) else ():
                settings.setdefault(name, set()).add(setting)
    return [name for name, different in settings.items() if len(different) > 1]


def importance(arm: Arm) -> dict[str, float]:
    """Returns the importance of each hyperparameter (conditional PED-ANOVA; Watanabe et al. 2023), summing to 1.

    It is the mean over the searches with enough complete trials; empty if there are none.
    """
    parts = [
        _importance_in_search(selection)
        for selection in arm.selections
        if np.isfinite(search_summary.values(selection)).sum() >= _MIN_TRIALS_OF_IMPORTANCE and selection.space
    ]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: float(np.mean([part.get(name, 0.0) for part in parts])) for name in names}


def _importance_in_search(selection: Selection) -> dict[str, float]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    ranges = {name: _distribution(space) for name, space in selection.space.items()}
    for trial, value in zip(selection.trials, search_summary.values(selection).tolist(), strict=True):
        if np.isfinite(value):
            settings = dict(trial.get("params", {}))
            of_trial = {name: ranges[name] for name in settings}
            study.add_trial(optuna.create_trial(params=settings, distributions=of_trial, value=value))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    with warnings.catch_warnings():
        # It warns of few trials, as the figure does, and of being experimental.
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=evaluator)


def _distribution(space: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Returns a range as Optuna describes it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in space:
        return CategoricalDistribution(space["choices"])
    if space["integer"]:
        return IntDistribution(int(space["low"]), int(space["high"]), log=space["log"])
    return FloatDistribution(space["low"], space["high"], log=space["log"])


def hyperparameters(arm: Arm, data: pd.DataFrame, results: Results) -> Figure:
    """Draws a panel for each hyperparameter, the most important first, with a dot for each trial.

    With several searches, scores are differences from the mean of each: what the folds differ by would hide the rest.
    """
    names = list(dict.fromkeys(data.sort_values("importance", ascending=False, kind="stable")["hyperparameter"]))
    several = len(arm.selections) > 1
    space = {name: one for selection in arm.selections for name, one in selection.space.items()}
    # Slanted names need more room below a panel.
    many = any(_are_slanted(space.get(name, {}).get("choices", ())) for name in names)
    n_columns = min(len(names), _COLUMNS)
    n_rows = -(-len(names) // n_columns)
    left, bottom, top, panel, gap = 0.6, 0.65 if many else 0.3, 1.05, 1.25, 0.9 if many else 0.62
    needed = left + 10.25 * n_columns / _COLUMNS
    width = max(needed, 6.5)  # the text above needs as much
    height = bottom + top + n_rows * panel + (n_rows - 1) * gap
    canvas = figure(width, height, (left, width - needed + 0.15, bottom, top))
    spaces = {"wspace": 0.12, "hspace": gap / panel}
    grid = canvas.subplots(n_rows, n_columns, sharey=True, squeeze=False, gridspec_kw=spaces)
    for axes in grid.flat[len(names) :]:
        axes.remove()
    height_column = "difference" if several else "value"
    for axes, name in zip(grid.flat, names, strict=False):
        rows = data[data["hyperparameter"] == name]
        _draw_panel(axes, rows, height_column, space.get(name, {}))
        share = rows["importance"].iloc[0]
        axes.set_title(name if np.isnan(share) else f"{name}, {100 * share:.0f} %", fontsize=9.5, fontweight="bold")
    grid[0, 0].yaxis.get_major_locator().set_params(nbins=4)
    score = f"{results.terms.inner} {results.target.label}" + (" minus the mean of its fold" if several else "")
    enough = data["importance"].notna().any()
    meaning = f"Per cent: importance, how much the best {_BEST_SHARE:.0%} of the trials depend on it (PED-ANOVA)."
    too_few = f"Fewer than {_MIN_TRIALS_OF_IMPORTANCE} complete trials in each search: too few to estimate importance."
    write_head(
        canvas,
        f"Hyperparameters of {arm.name}",
        f"Each dot is one of {plural(_count_trials(data), 'trial')}; height: {score}; orange: chosen.",
        meaning.replace("25%", "quarter") if enough else too_few,
    )
    return canvas


def _count_trials(data: pd.DataFrame) -> int:
    return len(data[["division", "trial"]].drop_duplicates())


def _draw_panel(axes: Axes, rows: pd.DataFrame, height: str, space: Mapping[str, Any]) -> None:
    from matplotlib.ticker import LogFormatter

    choices = list(space.get("choices", ())) or _categories(rows["setting"])
    places = rows["setting"].map(choices.index) if choices else rows["setting"].astype(float)
    chosen = rows["chosen"].to_numpy(bool)
    [dots] = axes.plot(places[~chosen], rows.loc[~chosen, height], "o", color=BLUE, markersize=3.2, alpha=0.5, mew=0)
    add_hover_text(dots, "trials that were not chosen")
    [best] = axes.plot(places[chosen], rows.loc[chosen, height], "o", color=ORANGE, markersize=5, mew=0, zorder=3)
    add_hover_text(best, *(_describe(row) for row in rows[chosen].to_dict("records")))
    if height == "difference":
        axes.axhline(0, color=SLATE, linewidth=0.7)
    if choices:
        axes.set_xlim(-0.5, len(choices) - 0.5)
        slanted: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
        style = slanted if _are_slanted(choices) else {}
        axes.set_xticks(range(len(choices)), list(map(str, choices)), fontsize=8, **style)
    elif space.get("log"):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_format_power)
        axes.xaxis.set_minor_formatter(LogFormatter())
    else:
        axes.locator_params(axis="x", nbins=4, integer=bool(space.get("integer")))


def _are_slanted(choices: Sequence[Any]) -> bool:
    return sum(len(str(choice)) for choice in choices) > _MOST_CHARACTERS


def _format_power(value: float, _place: float | None = None) -> str:
    """Formats the label of a logarithmic axis without markup, which an SVG with text as text can't have."""
    if 0.001 <= value <= 1000:
        return f"{value:g}"
    return "10" + str(round(np.log10(value))).translate(_RAISED)


def _categories(settings: Sequence[Any] | pd.Series[Any]) -> list[Any]:
    """Returns the different settings if they are not numbers; for trials whose space is not known."""
    different = list(dict.fromkeys(settings))
    return different if any(isinstance(setting, str) for setting in different) else []


def _describe(row: Mapping[Hashable, Any]) -> str:
    setting = f"{row['setting']:.3g}" if isinstance(row["setting"], float) else str(row["setting"])
    return f"{row['division']}, trial {row['trial']}: {row['hyperparameter']} {setting}, score {row['value']:.3f}"
