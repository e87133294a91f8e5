"""Fits the arms of one division of the data: its baselines, the selected recipes and the controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hirise_imb.config import GIVEN_SPLIT
from hirise_imb.imbalance.sampling import SplitFileRows
from hirise_imb.pipeline.cost import AVERAGED_CONTROLS
from hirise_imb.recipe import Recipe
from hirise_imb.reporting.records import Role
from hirise_imb.reporting.results import BASELINE, BASELINE_TO_THE_END
from hirise_imb.search import SearchResult
from hirise_imb.search.result import HistoryEntry
from hirise_imb.strategies import CONTROL, Strategy
from hirise_imb.training.context import Division
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.run_store import RunStore
from hirise_imb.training.trainer import CrossValidation, Run
from hirise_imb.utils.errors import FitFailed, UserError
from hirise_imb.utils.study_progress import StudyProgress

REFERENCE_RECIPES = {"unique": Recipe(), "split-file": Recipe(sampling=SplitFileRows())}
"""Recipes of the reference run, by rows of an epoch: each image once, or as often as the split file lists it."""

_NO_CAP = 1000
"""Epochs that the reference run's recipe does not need on any data."""

_ROW_NAMES = {"unique": "unique images", "split-file": "the repeated rows of the split file"}


def run_kind(role: Role) -> str:
    """Returns the name under which runs of an arm are stored."""
    # A reference run that is stopped on the validation split is another fit than a final one of the same recipe.
    return "reference" if role == "baseline" else "final"


@dataclass(frozen=True)
class ArmFit:
    """An arm in one division: its recipe, its cross-validation, and its fits."""

    name: str
    role: Role
    summary: str
    recipe: Recipe
    validation: CrossValidation
    runs: tuple[Run, ...]
    """One for each refit seed of the division."""
    settings: Mapping[str, str | float | int]
    """Hyperparameters that a search chose; empty without a search."""
    trials: tuple[HistoryEntry, ...]
    """Finished trials of the search; empty without a search."""
    search_seconds: float
    """Wall time of the search."""
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Range of each hyperparameter of the search."""

    @property
    def seconds(self) -> float:
        """Wall time of search, cross-validation and fits, including those of earlier runs."""
        return self.search_seconds + self.validation.seconds + sum(run.seconds for run in self.runs)


@dataclass(frozen=True)
class DivisionFits:
    """The arms of one division, and why others are missing."""

    division: Division
    arms: Mapping[str, ArmFit]
    """Arms by name."""
    failures: Mapping[str, tuple[str, str]]
    """Summary and reason by the name of each strategy that could not be used."""


class DivisionFitter:
    """Fits arms of one division; finished fits are stored and not repeated."""

    def __init__(self, division: Division, store: RunStore, progress: StudyProgress) -> None:
        """Takes the division, the store of its finished fits, and what shows how far they are."""
        self.division, self.store, self.progress = division, store, progress

    def count_stored(self, recipes: Mapping[str, Recipe]) -> None:
        """Tells the progress which fits are stored already.

        Args:
            recipes: chosen recipe of each strategy whose search is complete.
        """
        baselines = {BASELINE: REFERENCE_RECIPES["unique"], BASELINE_TO_THE_END: _to_the_end()}
        for name, recipe in {**baselines, **recipes}.items():
            kind = run_kind("baseline" if name == BASELINE else "strategy")
            if stored := self._count_stored(kind, recipe):
                self.progress.skip(self.division.fits_step(name), stored / len(self.division.refit_seeds))

    def _count_stored(self, kind: str, recipe: Recipe) -> int:
        return sum(self.store.has(kind, recipe, seed) for seed in self.division.refit_seeds)

    def fit_baseline(self, rows: str = "unique") -> ArmFit:
        """Fits the reference run as published.

        Args:
            rows: rows of an epoch, a key of `REFERENCE_RECIPES`.

        Raises:
            UserError: it can't be fitted.
        """
        summary = f"the reference run: cross-entropy on {_ROW_NAMES[rows]}, frozen backbone"
        return self._fit_untuned(BASELINE, "baseline", summary, REFERENCE_RECIPES[rows])

    def fit_baseline_to_the_end(self) -> ArmFit:
        """Fits the recipe of the reference run in the way of the strategies: as long as it gains, on the whole pool.

        Raises:
            UserError: it can't be fitted.
        """
        pool = "training and validation" if self.division.key == GIVEN_SPLIT else "all other outer folds"
        summary = f"the reference run's recipe, trained until it gains no more, on {pool}"
        return self._fit_untuned(BASELINE_TO_THE_END, "baseline_to_the_end", summary, _to_the_end())

    def fit_strategies(
        self, strategies: Sequence[Strategy], results: Mapping[str, Outcome[SearchResult]]
    ) -> tuple[dict[str, ArmFit], dict[str, tuple[str, str]]]:
        """Fits the selected recipe of each strategy.

        Returns:
            The arms by name, and summary and reason of each strategy that could not be used.
        """
        arms, failures = {}, {}
        for strategy in strategies:
            try:
                result = results[strategy.name].get()
                role: Role = "control" if strategy.name == CONTROL else "strategy"
                arm = self._fit(strategy.name, role, strategy.summary, result.recipe)
                arms[strategy.name] = replace(
                    arm,
                    settings=result.settings,
                    trials=tuple(result.history),
                    search_seconds=result.seconds,
                    space=result.space,
                )
            except FitFailed as error:
                failures[strategy.name] = strategy.summary, str(error)
        return arms, failures

    def fit_control(self, name: str, summary: str, recipe: Recipe) -> ArmFit:
        """Fits a further control.

        Raises:
            FitFailed: it can't be fitted.
        """
        return self._fit(name, "control", summary, recipe)

    def _fit_untuned(self, name: str, role: Role, summary: str, recipe: Recipe) -> ArmFit:
        try:
            return self._fit(name, role, summary, recipe)
        except FitFailed as error:
            raise UserError(
                f"The baseline can't be fitted ({error}): check the weights and the images, or the table of features."
            ) from error

    def _fit(self, name: str, role: Role, summary: str, recipe: Recipe) -> ArmFit:
        """Scores a recipe, fits it with each seed and predicts the tested landmarks."""
        trainer, seeds = self.division.trainer, self.division.refit_seeds
        kind = run_kind(role)
        step = self.division.fits_step(AVERAGED_CONTROLS if role == "control" and name != CONTROL else name)
        with self.progress.step(step, len(seeds), "fits", self._count_stored(kind, recipe)) as show:
            validation = self.store.load_or_validate(
                recipe, self.division.score_seeds, lambda: self.division.score_arm(recipe)
            )

            def fit(missing: Sequence[int]) -> list[Run]:
                if role == "baseline":
                    return [self._fit_reference(recipe, seed) for seed in missing]
                return trainer.fit_finals(recipe, missing, validation)

            runs = self.store.load_or_fit(kind, recipe, seeds, fit)
            show(len(seeds))
        return ArmFit(name, role, summary, recipe, validation, tuple(runs), {}, (), 0.0)

    def _fit_reference(self, recipe: Recipe, seed: int) -> Run:
        try:
            return self.division.trainer.fit_reference(recipe, seed)
        except FitFailed as error:
            raise FitFailed(f"with seed {seed}: {error}") from error


def _to_the_end() -> Recipe:
    """Returns the recipe of the reference run without a limit on epochs that binds."""
    return replace(Recipe(), max_epochs=_NO_CAP)


def fit_divisions(
    divisions: Sequence[Division],
    open_store: Callable[[Division], RunStore],
    strategies: Sequence[Strategy],
    search: Callable[[Division], Mapping[str, Outcome[SearchResult]]],
    progress: StudyProgress,
) -> list[DivisionFits]:
    """Fits all arms of each division of a design.

    Args:
        divisions: the divisions of the design.
        open_store: opens the store of the finished fits of a division.
        strategies: the strategies that are searched.
        search: completes the searches of a division and returns their results by strategy.
        progress: shows how far the fits are.

    Raises:
        UserError: a baseline can't be fitted.
    """
    fits = []
    for division in divisions:
        fitter = DivisionFitter(division, open_store(division), progress)
        # The baselines come before the searches: without them there is no report.
        baselines = [fitter.fit_baseline(), fitter.fit_baseline_to_the_end()]
        arms, failures = fitter.fit_strategies(strategies, search(division))
        fits.append(DivisionFits(division, {arm.name: arm for arm in baselines} | arms, failures))
    for name, summary, recipes in _averaged_controls(fits):
        for place, recipe in enumerate(recipes):
            one = fits[place]
            try:
                arm = DivisionFitter(one.division, open_store(one.division), progress).fit_control(
                    name, summary, recipe
                )
                fits[place] = replace(one, arms={**one.arms, name: arm})
            except FitFailed as error:
                fits[place] = replace(one, failures={**one.failures, name: (summary, str(error))})
    return fits


def _averaged_controls(fits: Sequence[DivisionFits]) -> Iterator[tuple[str, str, list[Recipe]]]:
    """Yields name, summary and recipes by division of a further control for strategies that average fits.

    Averaging alone removes chance differences between fits, so a strategy that averages is compared with a control that
    averages as many in each division.
    """
    if not all(CONTROL in one.arms for one in fits):
        return
    complete = [name for name in fits[0].arms if all(name in one.arms for one in fits)]
    members = {name: tuple(one.arms[name].recipe.n_averaged for one in fits) for name in complete}
    for counts in sorted(set(members.values()) - {(1,) * len(fits)}):
        if len(set(counts)) == 1:
            name, summary = f"{CONTROL}-x{counts[0]}", f"the control: the mean of {counts[0]} fits"
        else:
            first = next(name for name in complete if members[name] == counts)
            name, summary = f"{CONTROL}-as-{first}", f"the control: the mean of as many fits as in {first}"
        recipes = [replace(one.arms[CONTROL].recipe, members=n) for one, n in zip(fits, counts, strict=True)]
        yield name, summary, recipes
