"""Checks that run a strategy on the toy task: the same seed gives the same numbers, and rows stay with their images.

All of them run with the eight classes of HiRISE, and a few with three and with fifteen classes.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from hirise_imb.backbones import TOP
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import make_outer_split
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.inputs import FeatureKey
from hirise_imb.metrics.classification import Predictions, confusion_matrix, macro_f1
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Settings, Strategy
from hirise_imb.testing.checks import Check, expect, run_checks
from hirise_imb.testing.declarations import DECLARATION_CHECKS
from hirise_imb.testing.toy import CUTS, EIGHT, FIFTEEN, LAYERS, SIZES, THREE, TOY, Toy, ToyClasses, make_toy
from hirise_imb.training.fitted import FittedModel
from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.training.tail_network import Network
from hirise_imb.training.trainer import CrossValidation, Run, Trainer
from hirise_imb.utils.errors import FitFailed

SEEDS = (5, 6)
"""Seeds of a cross-validation; the toy task has an assignment of folds for each. The first is that of final fits."""
TOLERANCE = 1e-6
"""Absolute difference allowed between probabilities: products of matrices round by the position of a row."""

_LEARNT = 0.7
"""Macro F1 that counts as learnt where classes other than the eight are far apart. Fifteen centres in 16 features are
not told apart perfectly by every remedy; labels of other images would leave little more than chance."""

_OTHER_CLASSES = {"three": THREE, "fifteen": FIFTEEN}

T = TypeVar("T")

_FAST: Settings = {"learning_rate": 1e-2}
"""A high learning rate, since the toy task's epochs have few steps."""


def strategy_checks(strategy: Strategy, settings: Settings | None = None) -> list[Check]:
    """Returns the checks that a strategy must pass, each with its name.

    Args:
        strategy: an instance, with no overrides.
        settings: settings that suit the toy task if the defaults do not: its rarest class has five training landmarks,
            and classes far apart must be predicted without a mistake.
    """
    checks = [Check(strategy.name, run.__name__, partial(run, strategy)) for run in DECLARATION_CHECKS]
    recipe = functools.cache(partial(make_quick_recipe, strategy, settings))
    training_checks = [
        run for run in TRAINING_CHECKS if run is not differs_from_the_control or strategy.name != CONTROL
    ]
    checks += [Check(strategy.name, run.__name__, partial(_run, run, recipe)) for run in training_checks]
    for count, classes in _OTHER_CLASSES.items():
        checks.append(Check(strategy.name, f"learns_{count}_classes", partial(_run, partial(learns, classes), recipe)))
        # Fine-tuning takes most of the time, and one task shows whether it works with so many classes.
        if strategy.name != CONTROL and not strategy.trains_backbone:
            differs = partial(differs_from_the_control, classes=classes)
            checks.append(
                Check(strategy.name, f"differs_from_the_control_with_{count}_classes", partial(_run, differs, recipe))
            )
    return checks


def check_strategy(strategy: Strategy, settings: Settings | None = None) -> None:
    """Runs all `strategy_checks`.

    Raises:
        AssertionError: some failed; the message lists them.
    """
    run_checks(strategy_checks(strategy, settings))


def make_quick_recipe(strategy: Strategy, settings: Settings | None = None) -> Recipe:
    """Returns a recipe that learns from few rows, and so do the recipes it depends on.

    Small mini-batches give more steps: the moving averages of batch normalisation take about a hundred to converge.
    """
    fast = {name: value for name, value in _FAST.items() if name in {parameter.name for parameter in strategy.space}}
    bases = {base: make_quick_recipe(STRATEGIES[base]) for base in strategy.depends_on}
    recipe = strategy.recipe({**fast, **(settings or {})}, RecipeContext(CUTS, bases, tuple(LAYERS)))
    return replace(recipe, batch_size=8, patience=4) if recipe.trained else recipe


@dataclass
class ToyFits:
    """Outcomes of one trainer on a toy task; each recipe is fitted at its first request."""

    toy: Toy
    trainer: Trainer
    _validations: dict[Recipe, Outcome[CrossValidation]] = field(default_factory=dict)
    _finals: dict[Recipe, Outcome[Run]] = field(default_factory=dict)

    @classmethod
    def of(cls, toy: Toy) -> ToyFits:
        """Prepares the fits of a task; none is made yet."""
        trainer = toy.make_trainer(_backbone())
        # What networks compile depends on shapes alone. Compiling it for each task would take half of the checks' time.
        # Networks of different numbers of classes have different shapes.
        trainer._stages.networks = _networks.setdefault(len(toy.task.images.classes), {})
        return cls(toy, trainer)

    def validation(self, recipe: Recipe) -> Outcome[CrossValidation]:
        """Returns the cross-validation."""
        if recipe not in self._validations:
            seeds = SEEDS[: len(self.toy.task.assignments)]
            self._validations[recipe] = attempt(lambda: self.trainer.cross_validate(recipe, seeds))
        return self._validations[recipe]

    def final(self, recipe: Recipe) -> Outcome[Run]:
        """Returns the final fit, which predicts the test split."""
        if recipe not in self._finals:
            self._finals[recipe] = self.validation(recipe).then(
                lambda validation: self.trainer.fit_final(recipe, SEEDS[0], validation)
            )
        return self._finals[recipe]

    def probabilities(self, recipe: Recipe) -> np.ndarray:
        """Returns the probabilities of the test split, shape (n_test, n_classes)."""
        return self._test_predictions(recipe).probabilities

    def probabilities_by_image(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """Returns the probabilities of each test image by its name."""
        predictions = self._test_predictions(recipe)
        return dict(zip(predictions.images, predictions.probabilities, strict=True))

    def _test_predictions(self, recipe: Recipe) -> Predictions:
        return succeeded(self.final(recipe)).test


_backbone = functools.cache(lambda: TOY.load("random", HIRISE.image_shape))
_networks: dict[int, dict[str, Network]] = {}
"""The networks of all toy tasks, by number of classes and by cut."""


def noisy_fits(classes: ToyClasses = EIGHT) -> ToyFits:
    """Returns fits on overlapping clusters, so that wrong numbers would show."""
    return _fits(classes, noise=1.0, shift=0.5)


def separable_fits(classes: ToyClasses = EIGHT) -> ToyFits:
    """Returns fits on clusters far apart."""
    return _fits(classes, noise=0.01, shift=0.0)


@functools.cache
def _fits(classes: ToyClasses, noise: float, shift: float) -> ToyFits:
    return ToyFits.of(make_toy(_backbone(), noise, shift=shift, classes=classes))


@functools.cache
def moved_fits() -> ToyFits:
    """Returns fits of another trainer on the noisy task with its images at other positions.

    The test split is in another order, and half of it remains.
    """
    rng = np.random.default_rng(1)
    toy = noisy_fits().toy
    toy = toy.move(rng.permutation(len(toy.task.images.labels)))
    test = rng.permutation(toy.task.test)[: len(toy.task.test) // 2]
    return ToyFits.of(replace(toy, task=replace(toy.task, test=test)))


@functools.cache
def fits_without_class(label: int) -> ToyFits:
    """Returns fits on the noisy task without training images of a class."""
    return ToyFits.of(noisy_fits().toy.drop_training_class(label))


def succeeded(outcome: Outcome[T]) -> T:
    """Returns the value.

    Raises:
        AssertionError: the fit failed; the message is its reason.
    """
    try:
        return outcome.get()
    except FitFailed as error:
        raise AssertionError(f"the fit failed: {error}") from error


def array_bytes(toy: Toy) -> list[bytes]:
    """Returns the content of all arrays of a task."""
    task = toy.task
    arrays = [value for value in vars(task.images).values() if isinstance(value, np.ndarray)]
    arrays += [task.pool, task.test]
    folds = [task.split, *(fold for folds in task.assignments for fold in folds)]
    arrays += [rows for fold in folds for rows in (fold.train, fold.heldout)]
    arrays += [values for view in toy.features.values() for values in (view.stored, view.rows)]
    return [values.tobytes() for values in arrays]


def inputs_are_not_changed(recipe: Recipe) -> None:
    """Checks that neither a cross-validation nor a final fit writes into its inputs."""
    fits = noisy_fits()
    original = array_bytes(fits.toy)
    succeeded(fits.final(recipe))
    expect(array_bytes(fits.toy) == original, "a fit changes its inputs")


def predicts_probabilities(recipe: Recipe) -> None:
    """Checks that the probabilities of each test image add up to 1."""
    _check_probabilities(noisy_fits(), recipe)


def _check_probabilities(fits: ToyFits, recipe: Recipe) -> None:
    probabilities = fits.probabilities(recipe)
    expected = len(fits.toy.task.test), len(fits.toy.task.images.classes)
    expect(probabilities.shape == expected, "probabilities have the wrong shape")
    expect(probabilities.min() >= 0, "a probability is negative")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def differs_from_the_control(recipe: Recipe, classes: ToyClasses = EIGHT) -> None:
    """Checks that something changes against the control: weights, rows or logits, and so the probabilities."""
    control = make_quick_recipe(STRATEGIES[CONTROL])
    fits = noisy_fits(classes)
    one, other = succeeded(fits.validation(recipe)), succeeded(fits.validation(control))
    same_logits = np.allclose(one.log_probabilities, other.log_probabilities, atol=TOLERANCE)
    same_tests = np.allclose(fits.probabilities(recipe), fits.probabilities(control), atol=TOLERANCE)
    expect(not (same_logits and same_tests), "the recipe gives the probabilities of the control")


def cross_validation_ignores_the_test_split(recipe: Recipe) -> None:
    """Checks that scores and histories are the same without a test split."""
    fits = noisy_fits()
    task = replace(fits.toy.task, test=np.empty(0, np.int64))
    blind = succeeded(ToyFits.of(replace(fits.toy, task=task)).validation(recipe))
    validation = succeeded(fits.validation(recipe))
    np.testing.assert_array_equal(blind.confusions, validation.confusions)
    leaked = [column for column in validation.history if str(column).startswith("test")]
    expect(not leaked, "the history of a cross-validation has scores of the test split")


def same_seed_gives_same_numbers(recipe: Recipe) -> None:
    """Checks that numbers depend neither on positions, nor on the order of predictions, nor on earlier runs."""
    fits, moved = noisy_fits(), moved_fits()
    one, other = succeeded(fits.validation(recipe)), succeeded(moved.validation(recipe))
    np.testing.assert_array_equal(one.confusions, other.confusions)
    expect(one.epochs == other.epochs, "the number of epochs depends on the positions of images")
    np.testing.assert_allclose(one.history, other.history, rtol=1e-6)
    expected, actual = fits.probabilities_by_image(recipe), moved.probabilities_by_image(recipe)
    expect(len(actual) == len(expected) // 2, "some test images have no probabilities")
    for image, probabilities in actual.items():
        np.testing.assert_allclose(probabilities, expected[image], atol=TOLERANCE)


def separable_classes_are_told_apart(recipe: Recipe) -> None:
    """Checks for perfect scores: whatever paired features, labels or images wrongly would lower them."""
    on_test, on_validation = _separable_scores(recipe, EIGHT)
    expect(on_test == 1, f"macro F1 on the test split is {on_test:.3f}, not 1")
    expect(on_validation == 1, f"macro F1 on validation is {on_validation:.3f}, not 1")


def learns(classes: ToyClasses, recipe: Recipe) -> None:
    """Checks probabilities and scores on other classes, far apart: nothing may count on the eight of HiRISE."""
    # An epoch of fine-tuning takes as long as all of a head, and few of them are enough.
    on_test, on_validation = _separable_scores(recipe, classes, 30 if recipe.cut == TOP else 10)
    expect(on_test >= _LEARNT, f"macro F1 on the test split is {on_test:.3f}, below {_LEARNT}")
    expect(on_validation >= _LEARNT, f"macro F1 on validation is {on_validation:.3f}, below {_LEARNT}")


def _separable_scores(recipe: Recipe, classes: ToyClasses, epochs: int = 30) -> tuple[float, float]:
    """Returns macro F1 on the test split and on validation of clusters far apart.

    Args:
        recipe: recipe.
        classes: classes of the task.
        epochs: number of epochs, unless the recipe has a schedule of its own.
    """
    fits = separable_fits(classes)
    if recipe.trained and recipe.monitor != "none":
        # The epoch chosen for a part is the first that is perfect on the others, where the part itself may not be yet.
        recipe = replace(recipe, monitor="none", max_epochs=epochs)
    _check_probabilities(fits, recipe)
    truth = fits.toy.task.images.labels[fits.toy.task.test]
    confusion = confusion_matrix(truth, fits.probabilities(recipe).argmax(axis=1), len(classes.sizes))
    return macro_f1(confusion), succeeded(fits.validation(recipe)).score


def rare_class_may_lack_training_landmarks(recipe: Recipe) -> None:
    """Checks that probabilities are finite, and that the other classes are learnt."""
    fits = fits_without_class(5)
    probabilities = fits.probabilities(recipe)
    expect(np.isfinite(probabilities).all(), "a probability is not finite")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    score = succeeded(fits.validation(recipe)).score
    # The first of two folds lacks the class, so a perfect score would mean that labels leak; 0.3 is far above chance.
    expect(0.3 < score < 1, f"macro F1 in cross-validation is {score:.3f}")


def outer_fold_plays_no_part(recipe: Recipe) -> None:
    """Checks that labels and features of an outer fold move no score, no selected epoch and no fitted number.

    The fits of a nested cross-validation predict the outer fold; here they also predict some of their own training
    landmarks, whose probabilities show what was fitted.
    """
    toy = noisy_fits().toy
    images = toy.task.images
    tested = np.isin(images.sources, (3, 8, 13, 19))
    outer = np.flatnonzero(tested & images.is_canonical)

    def fit(features: Mapping[FeatureKey, Features], labels: np.ndarray) -> tuple[CrossValidation, np.ndarray]:
        task = make_outer_split(replace(images, labels=labels), outer, len(SEEDS))
        own = task.landmarks[::4]
        fits = ToyFits.of(Toy(replace(task, test=np.concatenate([outer, own])), features))
        return succeeded(fits.validation(recipe)), fits.probabilities(recipe)[len(outer) :]

    rng = np.random.default_rng(0)
    changed = {}
    for key, values in toy.features.items():
        array = values.take(np.arange(len(images.labels))).copy()
        array[tested] += rng.normal(size=array[tested].shape).astype(np.float32)
        changed[key] = Features.of(array)
    labels = np.where(tested, (images.labels + 1) % len(SIZES), images.labels)
    one, own = fit(toy.features, images.labels)
    other, own_again = fit(changed, labels)
    np.testing.assert_array_equal(other.log_probabilities, one.log_probabilities)
    np.testing.assert_array_equal(other.confusions, one.confusions)
    expect(other.epochs == one.epochs, "the number of epochs depends on the outer fold")
    expect(other.temperatures == one.temperatures, "a temperature depends on the outer fold")
    np.testing.assert_array_equal(own_again, own)


def stored_model_predicts_the_same(recipe: Recipe) -> None:
    """Checks that the fitted model, written to a file and read again, predicts what the fit has predicted."""
    fits = noisy_fits()
    run, task = succeeded(fits.final(recipe)), fits.toy.task
    assert run.model is not None
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **run.model.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        model = FittedModel.from_arrays(dict(arrays))
    spec = recipe.feature_spec
    views = []
    for view in spec.views:
        parts = [fits.toy.features[key].select(task.test) for key in spec.keys_of(view)]
        views.append(parts[0] if len(parts) == 1 else concatenate_features(parts))
    network = None if spec.cut == TOP else Network(_backbone(), spec.cut, spec.trainable)
    predicted = np.exp(model.log_probabilities(views, network))
    np.testing.assert_allclose(predicted, run.test.probabilities, rtol=0, atol=TOLERANCE)


TRAINING_CHECKS: tuple[Callable[[Recipe], None], ...] = (
    inputs_are_not_changed,
    predicts_probabilities,
    differs_from_the_control,
    cross_validation_ignores_the_test_split,
    same_seed_gives_same_numbers,
    separable_classes_are_told_apart,
    rare_class_may_lack_training_landmarks,
    outer_fold_plays_no_part,
    stored_model_predicts_the_same,
)


def _run(check: Callable[[Recipe], None], recipe: Callable[[], Recipe]) -> None:
    check(recipe())
