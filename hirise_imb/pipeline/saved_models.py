"""Saves the models of a study: those of its given split, whose fits trained on training and validation together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from hirise_imb.config import GIVEN_SPLIT, NESTED_CV, StudyDefinition, check_known
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.pipeline.division_fits import ArmFit, DivisionFits, run_kind
from hirise_imb.pipeline.model_card import write_card
from hirise_imb.prediction.model_file import (
    SUMS,
    SavedModel,
    describe_backbone,
    describe_features,
    read_model,
    write_model,
)
from hirise_imb.prediction.records import FORMAT, ModelRecord
from hirise_imb.prediction.scores import describe_confidence, score_predictions
from hirise_imb.reporting.formatting import plural
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import BASELINE, GIVEN_SPLIT_FOLDER, Results
from hirise_imb.training.context import TrainingContext
from hirise_imb.training.run_store import RunStore
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import digest_of
from hirise_imb.utils.progress import say

FOLDER = "models"
"""Folder of the models inside a report."""

SaveModels = Literal["none", "chosen", "all"]
"""Which models a study saves: none, those of the baseline and of the arms that validation chose, or all."""


@dataclass(frozen=True)
class ModelEntry:
    """A model in a report."""

    folder: Path
    model: SavedModel
    size: int
    """Size of its files in bytes."""
    is_current: bool
    """Whether the report still has the predictions that the model was tested with."""


def list_models(report: Path) -> tuple[list[ModelEntry], list[str]]:
    """Returns the models of a report by name, and a sentence for each folder that has none that can be read.

    Raises:
        UserError: there is no report, or it has no models.
    """
    if not (report / "summary.json").is_file():
        raise UserError(f"There is no report in {report}: name a folder that contains summary.json.")
    folders = [path.parent for path in sorted((report / FOLDER).glob(f"*/{SUMS}")) if path.parent.name[0] != "."]
    if not folders:
        raise UserError(f"{report} has no models: run its study again, without --save-models none.")
    entries, faults = [], []
    for folder in folders:
        try:
            model = read_model(folder)
        except UserError as error:
            faults.append(str(error))
            continue
        origin = model.facts["origin"]
        predictions = report / origin["predictions"]
        is_current = predictions.is_file() and digest_of(predictions, "sha256") == origin["digest"]
        size = sum(path.stat().st_size for path in folder.iterdir())
        entries.append(ModelEntry(folder, model, size, is_current))
    return entries, faults


def find_obstacle(definition: StudyDefinition) -> str | None:
    """Returns why a study has no models, or None if it has."""
    if definition.features:
        return "its features come from a table, so that there is no network from pixels to predictions"
    if GIVEN_SPLIT not in definition.evaluation:
        return "models are fits of the given split, and its evaluation has none"
    return None


def check_option(option: str | None, definition: StudyDefinition) -> SaveModels:
    """Returns which models a study saves.

    Args:
        option: the user's choice; None for the default, the baseline and the chosen arms where a study has models.
        definition: definition of the study.

    Raises:
        UserError: there is no such choice, or the user asked for models that this study does not have.
    """
    obstacle = find_obstacle(definition)
    if option is None:
        return "chosen" if obstacle is None else "none"
    choice = cast("SaveModels", check_known("choice of models", option, get_args(SaveModels)))
    if obstacle is not None and choice != "none":
        raise UserError(f"The study {definition.name} can't save models, because {obstacle}: leave out --save-models.")
    return choice


def save_models(
    choice: SaveModels,
    context: TrainingContext,
    fits: DivisionFits,
    store: RunStore,
    by_design: Mapping[str, Results],
    report: Path,
) -> None:
    """Saves models inside a report that has just been written.

    Args:
        choice: which models are saved, `chosen` or `all`.
        context: training context of the study.
        fits: fits of the given split.
        store: store of these fits.
        by_design: results of each design.
        report: folder of the report.

    Raises:
        UserError: a stored fit is damaged, or the folder can't be written to.
    """
    results = by_design[GIVEN_SPLIT]
    chosen = {BASELINE} | {design.chosen.name for design in by_design.values() if design.chosen is not None}
    arms = [arm for arm in results.arms if choice == "all" or arm.name in chosen]
    for arm in arms:
        fit = fits.arms[arm.name]
        facts = _describe(context, results, arm, fit, report, by_design.get(NESTED_CV))
        models = {seed: store.load_model(run_kind(fit.role), fit.recipe, seed) for seed in facts["seeds"]}
        card = write_card(facts, results, by_design.get(NESTED_CV))
        write_model(report / FOLDER / arm.name, facts, models, card)
    say(f"Saved {plural(len(arms), 'model')} in {report / FOLDER}: {', '.join(arm.name for arm in arms)}.")


def _describe(
    context: TrainingContext, results: Results, arm: Arm, fit: ArmFit, report: Path, nested: Results | None
) -> ModelRecord:
    """Returns the facts of the model of an arm."""
    definition, manifest = context.definition, context.manifest
    backbone = context.trainer.backbone
    assert backbone is not None  # `check_option` refuses a study on a table of features
    by_seed = [predictions.probabilities.astype(np.float64) for predictions in arm.predictions]
    # A probability that float32 has rounded to 0 has no logarithm.
    logs = [np.log(np.maximum(values, np.finfo(np.float32).tiny)) for values in by_seed]
    temperatures = [values[0] for values in arm.temperatures]  # the given split is a single division
    calibrated = np.mean([softmax(log / t) for log, t in zip(logs, temperatures, strict=True)], axis=0)
    probabilities = np.mean(by_seed, axis=0)
    predictions = f"{GIVEN_SPLIT_FOLDER}/" * (nested is not None) + f"predictions/{arm.name}.parquet"
    in_nested = nested is not None and arm.name in {entry.name for entry in nested.arms}
    pool = manifest.table[manifest.table["split"] != "test"]
    landmarks = pool.drop_duplicates("landmark")["label"].value_counts()
    return {
        "format": FORMAT,
        "dataset": manifest.spec.name,
        "classes": list(results.classes),
        "majority": results.classes.majority,
        "image_shape": list(manifest.spec.image_shape),
        "backbone": describe_backbone(backbone, definition.weights),
        "features": describe_features(fit.recipe.feature_spec),
        "seeds": list(arm.seeds),
        "recipe": fit.recipe.to_dict(),
        "settings": dict(fit.settings),
        "origin": {
            "study": definition.name,
            "arm": arm.name,
            "summary": arm.summary,
            "predictions": predictions,
            "digest": digest_of(report / predictions, "sha256"),
        },
        "training_data": {
            "data": definition.data,
            "digest": str(context.facts["data"]),
            "splits": sorted(pool["split"].unique()),
            "landmarks": {name: int(landmarks.get(k, 0)) for k, name in enumerate(results.classes)},
            "sources": sorted(pool["source"].unique()) if manifest.has_sources else [],
        },
        "scores": score_predictions(
            results.labels,
            results.test["source"],
            probabilities,
            results.classes,
            has_sources=manifest.has_sources,
            nested_macro_f1=nested.headline_scores(arm.name)["macro_f1"].mean
            if nested is not None and in_nested
            else None,
        ),
        "operating_point": describe_confidence(results.labels, probabilities, calibrated, results.classes),
        "packages": results.environment["packages"],
    }
