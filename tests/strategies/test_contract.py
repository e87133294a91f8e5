"""What every strategy keeps to when it is run: same seed, same numbers; rows that stay with their images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from toys import Toy, make_toy, quick_recipe, recipe_of
from worlds import done

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.hirise import CLASSES
from hirise_imb.features.arrays import Features
from hirise_imb.features.views import DIHEDRAL
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training.epoch_loop import Failed, Job
from hirise_imb.training.trainer import Run, Trainer

SEED = 5
each = pytest.mark.parametrize("name", STRATEGIES)
COMPUTED = ("prototypes", "logistic")
EXACT = 1e-6
"""Of probabilities: products of matrices round by the place of a row."""


@dataclass
class Fits:
    """Outcomes of one trainer, each made when it is first asked for."""

    toy: Toy
    trainer: Trainer
    refits: dict[Recipe, Run | Failed] = field(default_factory=dict)
    selected: dict[tuple[Recipe, str], Run | Failed] = field(default_factory=dict)

    def refit(self, recipe: Recipe) -> Run | Failed:
        if recipe not in self.refits:
            self.refits[recipe] = self.trainer.refit(recipe, SEED)
        return self.refits[recipe]

    def select(self, recipe: Recipe, selection: str = "val") -> Run | Failed:
        key = recipe, selection
        if key not in self.selected:
            self.selected[key] = self.trainer.select([Job(recipe, SEED)], selection)[0]  # type: ignore[arg-type]
        return self.selected[key]

    def probabilities(self, recipe: Recipe) -> np.ndarray:
        found = done(self.refit(recipe)).test
        assert found is not None
        return found

    def by_image(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """Probabilities of test images by name."""
        names = [self.toy.task.images.names[row] for row in self.toy.task.test]
        return dict(zip(names, self.probabilities(recipe), strict=True))


@pytest.fixture(scope="module")
def begin(backbone: Backbone) -> Callable[[Toy], Fits]:
    return lambda toy: Fits(toy, toy.trainer(backbone))


@pytest.fixture(scope="module")
def noisy(backbone: Backbone, begin: Callable[[Toy], Fits]) -> Fits:
    """Clusters that overlap, so that numbers have something to differ in."""
    return begin(make_toy(backbone, 1.0, shift=0.5))


@pytest.fixture(scope="module")
def elsewhere(noisy: Fits, begin: Callable[[Toy], Fits]) -> Fits:
    """The same task with its images at other places, fitted by another trainer, the last strategy first.

    Validation comes in another order, and so does the test split, of which half is left.
    """
    rng = np.random.default_rng(1)
    toy = noisy.toy.moved(rng.permutation(len(noisy.toy.task.images.labels)))
    order = rng.permutation(len(toy.task.split.heldout))
    split = replace(toy.task.split, heldout=toy.task.split.heldout[order])
    test = rng.permutation(toy.task.test)[: len(toy.task.test) // 2]
    task = replace(toy.task, split=split, val_groups=toy.task.val_groups[order], test=test)
    fits = begin(replace(toy, task=task))
    for strategy in reversed(STRATEGIES.values()):
        recipe = quick_recipe(strategy)
        fits.select(recipe)
        fits.refit(recipe)
    return fits


@pytest.fixture(scope="module")
def clear(backbone: Backbone, begin: Callable[[Toy], Fits]) -> Fits:
    """Clusters far apart."""
    return begin(make_toy(backbone, 0.01))


def contents(toy: Toy) -> list[bytes]:
    """All numbers of a toy."""
    task = toy.task
    arrays = [value for value in vars(task.images).values() if isinstance(value, np.ndarray)]
    arrays += [
        task.test,
        task.val_groups,
        *(rows for fold in (task.split, *task.folds) for rows in (fold.train, fold.heldout)),
    ]
    arrays += [values for own in toy.features.values() for values in (own.stored, own.rows)]
    return [values.tobytes() for values in arrays]


def with_features(toy: Toy, changes: Mapping[tuple[str, str], np.ndarray]) -> Toy:
    new = {key: Features.of(np.asarray(values, np.float32)) for key, values in changes.items()}
    return replace(toy, features={**toy.features, **new})


def of(name: str, **given: str | float) -> Recipe:
    return quick_recipe(STRATEGIES[name], given)


# --- every strategy ---


@each
def test_nothing_that_goes_in_is_changed(name: str, noisy: Fits) -> None:
    before = contents(noisy.toy)
    recipe = of(name)
    done(noisy.select(recipe))
    done(noisy.refit(recipe))
    assert contents(noisy.toy) == before


@each
def test_the_test_split_gets_probabilities(name: str, noisy: Fits) -> None:
    found = noisy.probabilities(of(name))
    assert found.shape == (len(noisy.toy.task.test), len(CLASSES))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


@each
def test_selection_does_not_see_the_test_split(name: str, noisy: Fits) -> None:
    run = done(noisy.select(of(name)))
    assert run.test is None
    assert not [column for column in run.history if str(column).startswith("test")]
    np.testing.assert_array_equal(run.val_confusion, done(noisy.refit(of(name))).val_confusion)


@each
def test_same_seed_same_numbers_wherever_images_stand(name: str, noisy: Fits, elsewhere: Fits) -> None:
    """Neither places, nor the order of what is predicted, nor other runs before play a part."""
    recipe = of(name)
    for one, other in (
        (noisy.select(recipe), elsewhere.select(recipe)),
        (noisy.refit(recipe), elsewhere.refit(recipe)),
    ):
        one, other = done(one), done(other)
        np.testing.assert_array_equal(one.val_confusion, other.val_confusion)
        assert one.best_epoch == other.best_epoch
        kept = [column for column in one.history if not str(column).startswith("test")]
        np.testing.assert_allclose(one.history[kept], other.history[kept], rtol=1e-6)
    here, there = noisy.by_image(recipe), elsewhere.by_image(recipe)
    assert len(there) == len(here) // 2
    for image, probabilities in there.items():
        np.testing.assert_allclose(probabilities, here[image], atol=EXACT)


@each
def test_clusters_far_apart_are_told_apart(name: str, clear: Fits) -> None:
    """Whatever would pair features, labels or images wrongly would show here."""
    # Training ends soon after all is told apart, with logits that can't spare all of the prior.
    gentle = {"logit_adjustment": {"tau": 0.25}}.get(name, {})
    recipe = of(name, **gentle)
    test = clear.toy.task.test
    found = confusion_matrix(
        clear.toy.task.images.labels[test], clear.probabilities(recipe).argmax(axis=1), len(CLASSES)
    )
    assert macro_f1(found) == 1
    assert done(clear.select(recipe)).val_macro_f1 == 1


@pytest.fixture(scope="module")
def no_ejecta(noisy: Fits, begin: Callable[[Toy], Fits]) -> Fits:
    """The noisy task without an image of impact ejecta to learn from."""
    return begin(noisy.toy.untaught(5))


@pytest.fixture(scope="module")
def no_other(noisy: Fits, begin: Callable[[Toy], Fits]) -> Fits:
    """Likewise of `other`, which samplings and projections treat apart."""
    return begin(noisy.toy.untaught(0))


@each
def test_a_rare_class_without_training_landmarks(name: str, no_ejecta: Fits) -> None:
    recipe = of(name)
    found = no_ejecta.probabilities(recipe)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    if recipe.cut == TOP:  # what trains the backbone is chosen by the split alone
        assert 0.3 < done(no_ejecta.select(recipe, "grouped-cv")).val_macro_f1 < 1


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.trains_backbone])
def test_no_training_landmarks_of_other(name: str, no_other: Fits) -> None:
    """Only what learns from `other` by its nature refuses."""
    found = no_other.refit(of(name))
    if name == "nuisance_projection":
        assert found == Failed("A projection of rank 5 needs at least 6 sources of other; there are 0.")
    else:
        assert np.isfinite(done(found).test).all()


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_knows_neither_seed_nor_order(name: str, noisy: Fits, begin: Callable[[Toy], Fits]) -> None:
    recipe = of(name)
    expected = noisy.probabilities(recipe)
    np.testing.assert_array_equal(done(noisy.trainer.refit(recipe, SEED + 1)).test, expected)
    split = noisy.toy.task.split
    shuffled = replace(split, train=np.random.default_rng(0).permutation(split.train))
    turned = begin(replace(noisy.toy, task=replace(noisy.toy.task, split=shuffled)))
    # Logistic regression ends near its optimum, and where it ends depends on rounding.
    np.testing.assert_allclose(turned.probabilities(recipe), expected, atol=1e-3 if name == "logistic" else EXACT)


def test_another_seed_gives_other_numbers(noisy: Fits) -> None:
    for name in ("plain", "oversampling", "undersampling", "synthetic"):
        other = done(noisy.trainer.refit(of(name), SEED + 1)).test
        assert np.abs(other - noisy.probabilities(of(name))).max() > 1e-4


def test_a_remedy_that_can_not_be_says_so(noisy: Fits) -> None:
    found = noisy.refit(of("synthetic", neighbours=7))
    assert isinstance(found, Failed)
    assert found.reason.startswith("smote needs at least 8 landmarks of ")
    assert found.reason.endswith("there are 7.") or found.reason.endswith("there are 5.")


# --- what must be the same ---


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("class_weights", {"power": 0.0}),
        ("class_weights", {"power": 0.0, "unit": "sources"}),
        ("logit_adjusted_loss", {"tau": 0.0}),
        ("logit_adjustment", {"tau": 0.0}),
        ("ensemble", {"kind": "seeds", "members": 1}),
    ],
)
def test_a_remedy_of_strength_zero_is_none(name: str, given: dict[str, str | float], noisy: Fits) -> None:
    found, plain = done(noisy.refit(of(name, **given))), done(noisy.refit(of("plain")))
    np.testing.assert_array_equal(found.test, plain.test)
    np.testing.assert_array_equal(found.val_confusion, plain.val_confusion)


def test_focal_loss_with_gamma_0_is_cross_entropy(noisy: Fits) -> None:
    found, plain = done(noisy.refit(of("focal_loss", gamma=0.0))), done(noisy.refit(of("plain")))
    np.testing.assert_allclose(found.test, plain.test, atol=1e-5)


def test_after_uniform_sampling_no_prior_is_left_to_adjust(noisy: Fits) -> None:
    recipe = of("oversampling", power=0.0)
    adjusted = replace(recipe, adjustment=PosthocLogitAdjustment(1.0))
    np.testing.assert_allclose(noisy.probabilities(adjusted), noisy.probabilities(recipe), atol=EXACT)
    # After any other sampling there is.
    halfway = of("oversampling", power=0.5)
    adjusted = replace(halfway, adjustment=PosthocLogitAdjustment(1.0))
    assert np.abs(noisy.probabilities(adjusted) - noisy.probabilities(halfway)).max() > 0.05


def test_the_prior_that_is_taken_off_is_that_of_the_training_images(noisy: Fits) -> None:
    """z - tau log prior, by hand."""
    task = noisy.toy.task
    shares = np.bincount(task.images.labels[task.split.train], minlength=8) / len(task.split.train)
    expected = noisy.probabilities(of("plain")) / shares**0.5
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(noisy.probabilities(of("logit_adjustment", tau=0.5)), expected, atol=1e-5)


def test_a_temperature_changes_no_decision(noisy: Fits) -> None:
    plain, found = of("plain"), of("temperature")
    np.testing.assert_array_equal(noisy.probabilities(found).argmax(axis=1), noisy.probabilities(plain).argmax(axis=1))
    assert np.abs(noisy.probabilities(found) - noisy.probabilities(plain)).max() > 1e-3
    np.testing.assert_array_equal(done(noisy.select(found)).val_confusion, done(noisy.select(plain)).val_confusion)


def test_views_that_are_all_alike_change_nothing(noisy: Fits, begin: Callable[[Toy], Fits]) -> None:
    plain = noisy.toy.features[TOP, "plain"].stored
    alike = begin(with_features(noisy.toy, {(TOP, view): plain for view in DIHEDRAL}))
    for views in ("mirror", "rotations", "dihedral"):
        np.testing.assert_allclose(
            alike.probabilities(of("tta", views=views)), noisy.probabilities(of("plain")), atol=EXACT
        )
    assert np.abs(noisy.probabilities(of("tta")) - noisy.probabilities(of("plain"))).max() > 1e-3


def test_an_ensemble_averages_the_log_probabilities_of_its_heads(noisy: Fits) -> None:
    """One trained head and two that are computed, each by itself and then by hand."""
    whole = of("ensemble", kind="heads", members=1)
    alone = [replace(whole, also=()), *(Recipe(head=head) for head in whole.also)]
    expected = np.exp(np.mean([np.log(noisy.probabilities(recipe).astype(float)) for recipe in alone], axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(noisy.probabilities(whole), expected, atol=1e-5)


def test_what_was_projected_out_moves_no_prediction(noisy: Fits, begin: Callable[[Toy], Fits]) -> None:
    recipe = of("nuisance_projection")
    toy, images = noisy.toy, noisy.toy.task.images
    values = toy.features[TOP, "plain"].stored.astype(np.float64)
    rows = toy.task.split.train[images.is_canonical[toy.task.split.train]]
    taught = NuisanceProjection(5).directions(values[rows], images.labels[rows], images.sources[rows])
    # The sources of `other` no longer differ in these: the scatter between their means vanishes there.
    others = rows[images.labels[rows] == 0]
    means = [values[others[images.sources[others] == s]].mean(axis=0) for s in np.unique(images.sources[others])]
    spread = np.var(means - (means @ taught) @ taught.T, axis=0)
    assert np.var((means - (means @ taught) @ taught.T) @ taught, axis=0).max() < 1e-20
    assert spread.sum() < np.var(means, axis=0).sum()
    moved = values.copy()
    moved[toy.task.test] += 3 * np.random.default_rng(0).normal(size=(len(toy.task.test), 5)) @ taught.T
    elsewhere = begin(with_features(toy, {(TOP, "plain"): moved}))
    np.testing.assert_allclose(elsewhere.probabilities(recipe), noisy.probabilities(recipe), atol=1e-4)
    assert np.abs(elsewhere.probabilities(of("plain")) - noisy.probabilities(of("plain"))).max() > 0.1


def test_the_control_can_not_be_told_from_a_strategy_that_starts_from_it(noisy: Fits) -> None:
    """What is done to logits after training costs no training: epochs are those of the control."""
    plain = done(noisy.refit(of("plain"))).history
    for name in ("logit_adjustment", "tau_norm", "class_bias", "temperature", "tta"):
        assert done(noisy.refit(of(name))).history.equals(plain)
        assert of(name).training() == of("plain")


def test_defaults_can_be_run_as_they_are(noisy: Fits) -> None:
    """Without what suits the toy."""

    def shortened(strategy: Strategy) -> Recipe:
        recipe = recipe_of(strategy)
        short = {"max_epochs": recipe.reweight_after + 1} if recipe.trained else {}
        return dataclasses.replace(recipe, **short)

    for strategy in STRATEGIES.values():
        done(noisy.trainer.select([Job(shortened(strategy), SEED)], "val")[0])
    # Classes of five landmarks have no five neighbours.
    assert isinstance(noisy.refit(of("synthetic", neighbours=5)), Failed)
