"""Plans a study without running it: what it will be able to detect, and the fits, disk and time it will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hirise_imb.backbones import BackboneCard
from hirise_imb.config import GIVEN_SPLIT, StudyDefinition
from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.folds import N_FOLDS
from hirise_imb.data.manifest import Manifest
from hirise_imb.data.splits import DataSplits, make_outer_splits, make_splits
from hirise_imb.features.cache import row_bytes
from hirise_imb.features.inputs import MAP
from hirise_imb.metrics.detectable import N_FITS, DetectableDifference, count_support, simulate_detectable_difference
from hirise_imb.pipeline.cost import REPORT_SECONDS, FitSizes, count_arms, estimate_workload, images_per_second
from hirise_imb.search import strategies_to_search
from hirise_imb.strategies import Strategy
from hirise_imb.training.context import find_card, load_manifest, load_table, require_features

_REPORT_BYTES = 800_000
"""Bytes of an arm's part of a report: figures, tables and its part of the page (reports/real-sample)."""
_TRIAL_BYTES = 60_000
"""Bytes of a trial in the database, with the picture of its confusion matrix."""
_MEASURED_PIXELS = 227**2
"""Pixels of the images that the speeds of backbones were measured on; the arithmetic grows with their number."""
_NAME_BYTES = 32
"""Bytes of the name of an image in a stored run."""


@dataclass(frozen=True)
class FeaturePlan:
    """The features that a study extracts, unless they are cached; none if they come from a table."""

    views: Mapping[str, int]
    """Number of images that go through the backbone by view."""
    bytes: int
    """Disk for them, without the cuts in `unknown_cuts`."""
    seconds: float
    unknown_cuts: tuple[str, ...]
    """Cuts for fine-tuning whose shape the backbone does not declare."""

    @property
    def n_views(self) -> int:
        """Number of views of images that go through the backbone."""
        return sum(self.views.values())


@dataclass(frozen=True)
class DesignPlan:
    """What one design of a study takes, and what it can detect."""

    name: str
    n_divisions: int
    """How often everything is searched, chosen and fitted: once for the given split, else in every outer fold."""
    detectable: DetectableDifference
    fits: int
    """Number of fits at most: a strategy that averages fits is counted with the largest number."""
    fine_tuning_fits: int
    """Those of strategies that fine-tune the backbone."""
    bytes: int
    """Disk for stored runs, trials and the report."""
    seconds: float


@dataclass(frozen=True)
class StudyPlan:
    """What a study takes; times are for `N_CORES` cores."""

    definition: StudyDefinition
    manifest: Manifest
    strategies: tuple[Strategy, ...]
    features: FeaturePlan
    designs: tuple[DesignPlan, ...]

    @property
    def fine_tunes(self) -> bool:
        """Whether a strategy fine-tunes the backbone."""
        return any(strategy.trains_backbone for strategy in self.strategies)


def detectable_difference(manifest: Manifest, design: str, n_fits: int = N_FITS) -> DetectableDifference:
    """Simulates the minimum detectable difference of macro F1 on the landmarks that a design tests.

    Args:
        manifest: data set.
        design: the given split tests its test split, nested cross-validation tests every landmark.
        n_fits: number of fits of each arm.
    """
    splits = ("test",) if design == GIVEN_SPLIT else SPLITS
    landmarks = pd.concat([manifest.canonical_images(split) for split in splits])
    classes = manifest.spec.classes
    return simulate_detectable_difference(count_support(landmarks, len(classes)), classes.majority_id, n_fits)


def plan_study(definition: StudyDefinition) -> StudyPlan:
    """Plans a study.

    Raises:
        UserError: the definition can't be run on its data.
    """
    strategies = strategies_to_search(definition)
    manifest = load_manifest(definition)
    table = load_table(definition, manifest)
    card = find_card(definition, table)
    return StudyPlan(
        definition,
        manifest,
        tuple(strategies),
        plan_features(card, manifest, strategies) if table is None else FeaturePlan({}, 0, 0.0, ()),
        tuple(_plan_design(name, definition, manifest, strategies, card) for name in definition.evaluation),
    )


def plan_features(card: BackboneCard, manifest: Manifest, strategies: Sequence[Strategy]) -> FeaturePlan:
    """Plans the extraction of the features that the strategies use."""
    required = require_features(strategies, card)
    n_images, n_landmarks = len(manifest.table), manifest.table["landmark"].nunique()
    views, n_bytes, unknown = Counter[str](), 0, []
    for keys, count in ((required.images, n_images), (required.canonical_images, n_landmarks)):
        views.update(dict.fromkeys({key.view for key in keys}, count))
        for key in keys:
            if key.statistic != MAP:
                n_bytes += count * row_bytes((card.width(key.layer),), key.statistic)
            elif key.layer in card.cut_shapes:
                stride, channels = card.cut_shapes[key.layer]
                side = -(-manifest.spec.image_size // stride)
                n_bytes += count * row_bytes((side, side, channels), key.statistic)
            else:
                unknown.append(key.layer)
    seconds = views.total() / images_per_second(card) * manifest.spec.image_size**2 / _MEASURED_PIXELS
    return FeaturePlan(views, n_bytes, seconds, tuple(dict.fromkeys(unknown)))


def _plan_design(
    name: str, definition: StudyDefinition, manifest: Manifest, strategies: Sequence[Strategy], card: BackboneCard
) -> DesignPlan:
    divisions: tuple[DataSplits, ...]
    if name == GIVEN_SPLIT:
        divisions, repeats, n_seeds = (make_splits(manifest, 1),), 1, definition.trial_seeds
    else:
        # Other repeats have other outer folds, of the same size.
        divisions = make_outer_splits(manifest, definition.outer_folds, 0, 1)
        repeats, n_seeds = definition.repeats, definition.inner_seeds
    n_divisions = len(divisions) * repeats
    n_folds = max(len(division.assignments[0]) for division in divisions)
    mean_pool = sum(len(division.pool) for division in divisions) / len(divisions)
    sizes = FitSizes(
        validation=n_seeds * n_folds,
        final=definition.refits,
        rows=mean_pool * (1 - 1 / N_FOLDS),
        backbone=card,
    )
    workload = estimate_workload(strategies, definition, sizes)
    n_arms = count_arms(strategies)
    n_tested = sum(len(division.test) for division in divisions) * repeats * definition.refits
    n_held_out = sum(len(division.landmarks) for division in divisions) * repeats * n_seeds
    # Probabilities are float32; those of tested landmarks are stored by the run and by the report.
    arm_bytes = 4 * len(manifest.spec.classes) * (2 * n_tested + n_held_out) + _NAME_BYTES * n_tested + _REPORT_BYTES
    return DesignPlan(
        name=name,
        n_divisions=n_divisions,
        detectable=detectable_difference(manifest, name, definition.refits),
        fits=n_divisions * workload.fits,
        fine_tuning_fits=n_divisions * workload.fine_tuning_fits,
        bytes=n_arms * arm_bytes + n_divisions * workload.trials * _TRIAL_BYTES,
        seconds=n_divisions * workload.seconds + n_arms * REPORT_SECONDS,
    )
