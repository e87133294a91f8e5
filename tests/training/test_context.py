"""From a definition and its data to a trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cut_features import cut_key, extract_at
from worlds import change_split_file, fit_final

from hirise_imb.backbones import BACKBONES, TOP
from hirise_imb.config import StudyDefinition
from hirise_imb.data import manifest
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.inputs import Input, Inputs
from hirise_imb.features.views import DIHEDRAL, JITTERED, VIEWS
from hirise_imb.imbalance.mixing import Mixup
from hirise_imb.recipe import Recipe, Views
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training.context import TrainingContext, load_manifest
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import UserError


@pytest.fixture(scope="module")
def images(small_data: Path) -> Manifest:
    return manifest.read_manifest(small_data, HIRISE)


@pytest.fixture
def definition(toy: str, small_data: Path) -> StudyDefinition:
    return StudyDefinition(backbone=toy, weights="random", data=str(small_data))


class Seeing(type(STRATEGIES["class_weights"])):  # type: ignore[misc]
    """A strategy whose recipes name these views."""

    def __init__(self, inputs: Views = ("plain",), views: Views = ("plain",)) -> None:
        self._inputs = tuple(map(Input, inputs))
        self.views = views

    def inputs(self, layers: Sequence[str]) -> Inputs:
        return self._inputs


# --- the features ---


@pytest.mark.parametrize("deep", [False, True])
def test_features_are_those_of_every_image(
    deep: bool, definition: StudyDefinition, images: Manifest, tmp_path: Path
) -> None:
    strategies: Sequence[Strategy] = [STRATEGIES["partial_unfreeze"]] if deep else [STRATEGIES["class_weights"]]
    found = TrainingContext.prepare(definition, images, strategies)
    card = BACKBONES[definition.backbone]
    assert found.cuts == tuple(card.cuts)
    features = found.trainer._stages.inputs._features
    assert set(features) == {cut_key(cut) for cut in ([TOP, *card.cuts] if deep else [TOP])}
    paths = [images.path(image) for image in images.table["image"]]
    expected = extract_at(card.load("random", HIRISE.image_shape), [TOP], paths, tmp_path)[TOP]
    every = np.arange(len(paths))
    np.testing.assert_array_equal(features[cut_key(TOP)].take(every), expected.take(every))


def test_views_are_extracted_as_far_as_they_are_needed(
    definition: StudyDefinition, images: Manifest, tmp_path: Path
) -> None:
    found = TrainingContext.prepare(
        definition, images, [Seeing(inputs=("plain", "photometric")), Seeing(views=("plain", "fh"))]
    )
    features, canonical = found.trainer._stages.inputs._features, found.trainer.splits.images.is_canonical
    assert set(features) == {cut_key(TOP, view) for view in ("plain", "photometric", "fh")}
    paths = [images.path(image) for image in images.table["image"]]
    every, backbone = np.arange(len(paths)), BACKBONES[definition.backbone].load("random", HIRISE.image_shape)
    whole = extract_at(backbone, [TOP], paths, tmp_path, view="photometric")[TOP]
    np.testing.assert_array_equal(features[cut_key(TOP, "photometric")].take(every), whole.take(every))
    mirrored = extract_at(backbone, [TOP], paths, tmp_path, view="fh")[TOP]
    rows = np.flatnonzero(canonical)
    np.testing.assert_array_equal(features[cut_key(TOP, "fh")].take(rows), mirrored.take(rows))
    with pytest.raises(IndexError):
        features[cut_key(TOP, "fh")].take(np.flatnonzero(~canonical)[:1])
    recipe = Recipe(views=("plain", "fh"), max_epochs=1)
    assert isinstance(fit_final(found.trainer, recipe), Run)
    assert isinstance(fit_final(found.trainer, Recipe(inputs=(Input(), Input("photometric")), max_epochs=1)), Run)


def test_views_that_are_trained_on_are_extracted_at_the_first_cut(
    definition: StudyDefinition, images: Manifest, tmp_path: Path
) -> None:
    found = TrainingContext.prepare(definition, images, [STRATEGIES["augmentation"]])
    features = found.trainer._stages.inputs._features
    further = (*DIHEDRAL[1:], *JITTERED)
    plain = {cut_key(cut) for cut in (TOP, *found.cuts)}
    assert set(features) == plain | {cut_key(found.cuts[0], view) for view in further}
    paths = [images.path(image) for image in images.table["image"]]
    backbone = BACKBONES[definition.backbone].load("random", HIRISE.image_shape)
    some = np.arange(0, len(paths), 7)
    pixels = [decode_image(paths[row], HIRISE.image_shape) for row in some]
    for view in ("r90", "brighter"):
        turned = np.stack([VIEWS[view](one) for one in pixels]).astype(np.float32)
        expected = np.asarray(backbone.trunk(found.cuts[0])(turned, training=False))
        np.testing.assert_allclose(features[cut_key(found.cuts[0], view)].take(some), expected, rtol=2e-3, atol=2e-3)
    recipe = Recipe(cut=found.cuts[0], training_views=("plain", *further), mixing=Mixup(), max_epochs=1)
    assert isinstance(fit_final(found.trainer, recipe), Run)


def test_a_view_that_is_learnt_from_and_turned_to_is_there_for_every_image(
    definition: StudyDefinition, images: Manifest
) -> None:
    both = TrainingContext.prepare(definition, images, [Seeing(inputs=("plain", "fh")), Seeing(views=("plain", "fh"))])
    recipe = Recipe(inputs=(Input(), Input("fh")), max_epochs=1)
    assert isinstance(fit_final(both.trainer, recipe), Run)


# --- what is told ---


def test_the_facts_are_what_numbers_depend_on(definition: StudyDefinition, own_data: Path) -> None:
    def facts(changed: StudyDefinition) -> dict[str, str | int]:
        return dict(TrainingContext.prepare(changed, load_manifest(changed), []).given_split.facts)

    mine = dataclasses.replace(definition, data=str(own_data))
    base = facts(mine)
    assert set(base) == {"dataset", "data", "backbone", "weights", "precision", "trial_seeds", "seed"}
    assert facts(definition) == base
    for change in ({"weights": "imagenet"}, {"seed": 1}, {"trial_seeds": 2}, {"precision": "bfloat16"}):
        other = facts(dataclasses.replace(mine, **change))
        assert {name for name in base if base[name] != other[name]} == set(change)
    line = manifest.read_manifest(own_data, HIRISE).table.iloc[0]
    change_split_file(
        own_data, f"{line['image']} ", f"{line['image']} {line['label']} {line['split']}\n{line['image']} "
    )
    other = facts(mine)
    assert {name for name in base if base[name] != other[name]} == {"data"}


def test_an_outer_fold_has_facts_and_seeds_of_its_own(definition: StudyDefinition, images: Manifest) -> None:
    nested = dataclasses.replace(definition, outer_folds=3, repeats=2, inner_seeds=2, refits=2, trial_seeds=1)
    context = TrainingContext.prepare(nested, images, [])
    folds = context.divisions("nested-cv")
    assert [fold.name for fold in folds[:4]] == [
        "repeat 1, fold 1",
        "repeat 1, fold 2",
        "repeat 1, fold 3",
        "repeat 2, fold 1",
    ]
    assert len({fold.key for fold in folds}) == len(folds) == 6
    assert len({tuple(sorted(fold.facts.items())) for fold in folds}) == 6
    assert all(fold.facts.items() >= context.facts.items() for fold in folds)
    # Repeats differ in everything that is random; the folds of a repeat have the same seeds, which are pooled.
    assert [fold.refit_seeds for fold in folds] == [(0, 1)] * 3 + [(2, 3)] * 3
    assert {fold.trial_seeds for fold in folds} == {(0, 1)}
    [given] = context.divisions("given-split")
    assert (given.trial_seeds, given.refit_seeds) == ((0,), (0, 1))
    assert given.trainer.splits is context.trainer.splits
    more = TrainingContext.prepare(dataclasses.replace(nested, repeats=3), images, [])
    # Finished repeats stay valid when another is added.
    assert [fold.facts for fold in more.divisions("nested-cv")][:6] == [fold.facts for fold in folds]


@pytest.mark.parametrize("number", [1, 3])
def test_each_seed_of_trials_and_of_scores_has_an_assignment_of_folds(
    number: int, definition: StudyDefinition, images: Manifest
) -> None:
    found = TrainingContext.prepare(dataclasses.replace(definition, trial_seeds=number), images, [])
    # As many for the scores of arms, which are other folds than those of trials.
    assert len(found.trainer.splits.assignments) == 2 * number


def test_what_it_is_about_names_the_backbone(definition: StudyDefinition, images: Manifest) -> None:
    found = TrainingContext.prepare(definition, images, [])
    assert found.description.startswith("Backbone: toy with weights random")
    assert found.seconds >= 0
    assert found.definition is definition
    assert found.manifest is images


@pytest.mark.parametrize(
    "changes", [{"backbone": "nothing"}, {"precision": "float8"}, {"dataset": "mars"}, {"data": "/nowhere"}]
)
def test_what_is_not_there_is_told_at_once(changes: dict[str, str], definition: StudyDefinition) -> None:
    with pytest.raises(UserError, match=next(iter(changes.values()))):
        load_manifest(dataclasses.replace(definition, **changes))  # type: ignore[arg-type]


def test_weights_that_are_not_there_are_told(definition: StudyDefinition, images: Manifest) -> None:
    with pytest.raises(UserError, match="does not contain weights of toy"):
        TrainingContext.prepare(dataclasses.replace(definition, weights="elsewhere"), images, [])
