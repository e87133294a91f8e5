"""The content of `model.json` as typed records, from which its schema is generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from hirise_imb.reporting.summary.json_schema import Rule
from hirise_imb.reporting.summary.values import Count, Share

FORMAT: Literal[1] = 1
"""Version of the model file."""

Digest = Annotated[str, Rule(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits."""

_Names = Annotated[list[str], Rule(minItems=2, uniqueItems=True)]


class BackboneRecord(TypedDict):
    """The network that features come from."""

    name: Annotated[str, "Key in hirise_imb.backbones.BACKBONES"]
    weights: Annotated[str, "imagenet, random, or the path of a weights file where the study ran"]
    digest: Annotated[Digest, "SHA-256 of all weights, before a part of them was trained"]
    precision: str
    preprocessing: str


class InputRecord(TypedDict):
    """Features that the head takes as input."""

    view: str
    layer: str
    pooling: str


class FeatureSpecRecord(TypedDict):
    """The features from which the model predicts."""

    inputs: Annotated[list[InputRecord], Rule(minItems=1)]
    views: Annotated[list[str], Rule(minItems=1)]
    cut: str
    trainable: str


class TrainingDataRecord(TypedDict):
    """The landmarks that the model was trained on."""

    data: Annotated[str, "Value of --data"]
    digest: Annotated[str, "Digest of labels, splits and image files"]
    splits: Annotated[list[str], "Splits that were used, in training or for the choice of hyperparameters"]
    landmarks: Annotated[dict[str, Count], "Number of landmarks of these splits by class"]
    sources: Annotated[list[str], "Sources of these splits"]


class ClassScoreRecord(TypedDict):
    """Scores of one class on the tested landmarks."""

    landmarks: Count
    sources: Annotated[Count | None, "Null where the data set names no sources"]
    precision: Share
    recall: Share
    f1: Share
    f1_interval: Annotated[list[float] | None, "Confidence interval over sources; null where none can be given"]


class ScoresRecord(TypedDict):
    """Scores on the landmarks that the report tested; the class is the most probable one as trained."""

    macro_f1: Share
    macro_f1_interval: Annotated[list[float] | None, "Confidence interval over sources; null where none can be given"]
    nested_macro_f1: Annotated[Share | None, "Of the arm in the nested cross-validation, mean over fits; null without"]
    classes: dict[str, ClassScoreRecord]


class ConfidentRecord(TypedDict):
    """Tested landmarks of one class with a confident prediction."""

    landmarks: Annotated[Count, "Landmarks of the class"]
    decided: Annotated[Count, "Those whose prediction is confident, whatever it is"]
    shown: Annotated[Count, "Landmarks of any class that are confidently predicted as this class"]
    right: Annotated[Count, "Those that belong to it"]


class ConfidenceRecord(TypedDict):
    """Predictions whose calibrated probability reaches a threshold, on the landmarks that the report tested."""

    threshold: Share
    coverage: Annotated[Share, "Share of all landmarks with a confident prediction"]
    precision: Annotated[Share | None, "Share of confident predictions that are right; null without any"]
    classes: dict[str, ConfidentRecord]


class OriginRecord(TypedDict):
    """The report whose arm the model is."""

    study: str
    arm: str
    summary: Annotated[str, "One line about the arm"]
    predictions: Annotated[
        str,
        Rule(pattern=r"^(given-split/)?predictions/[^/\\]+\.parquet$"),
        "File of the predictions that the model was tested with, in the folder of the report",
    ]
    digest: Annotated[Digest, "SHA-256 of that file"]


class ModelRecord(TypedDict):
    """The content of `model.json`."""

    format: Annotated[int, Rule(const=FORMAT)]
    dataset: Annotated[str, "Data set, or layout of data that brings its own classes"]
    classes: Annotated[_Names, "Names of the classes in the order of the probabilities"]
    majority: str | None
    image_shape: Annotated[list[int], Rule(minItems=3, maxItems=3), "Rows, columns and channels of an image"]
    backbone: BackboneRecord
    features: FeatureSpecRecord
    seeds: Annotated[list[int], Rule(minItems=1), "Seed of each fit; probabilities are means over the fits"]
    recipe: dict[str, Any]
    settings: Annotated[dict[str, str | float | int], "Hyperparameters that a search chose"]
    origin: OriginRecord
    training_data: TrainingDataRecord
    scores: ScoresRecord
    operating_point: ConfidenceRecord
    packages: Annotated[dict[str, str], "Versions of the packages with which the model was trained"]
