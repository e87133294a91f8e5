"""The model card (Mitchell et al. 2019): what a saved model is, what it was tested on, and where it fails."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np

from hirise_imb.data import DATASETS
from hirise_imb.data.resolve import ARCHIVE, SYNTHETIC
from hirise_imb.metrics.classification import confusion_matrix
from hirise_imb.prediction.records import ModelRecord
from hirise_imb.reporting.formatting import MISSING, join_words, percent, plural, score
from hirise_imb.reporting.results import Results

_WIDTH = 100
"""Longest line of a list of sources."""

_N_CONFUSIONS = 5
"""Number of confusions that a card lists, the most frequent first."""


def write_card(facts: ModelRecord, given: Results, nested: Results | None) -> str:
    """Returns the model card in Markdown.

    Args:
        facts: facts of the model.
        given: results of the given split, whose fits the model consists of.
        nested: results of the nested cross-validation of the same study; None without one.
    """
    sections = {
        f"Model card: {facts['origin']['arm']}": _introduction(facts),
        "Use": _use(),
        "Training data": _training_data(facts),
        "Scores": _scores(facts, given, nested),
        "Confident predictions": _confidence(facts),
        "Known failures": _failures(facts, given),
        "Sources": _sources(facts),
        "Licence": _licence(facts),
    }
    return "\n".join(
        line
        for number, (title, lines) in enumerate(sections.items())
        for line in (f"{'##' if number else '#'} {title}", "", *lines, "")
    )


def _introduction(facts: ModelRecord) -> Iterator[str]:
    origin, backbone = facts["origin"], facts["backbone"]
    rows, columns, channels = facts["image_shape"]
    colours = "grey" if channels == 1 else "colour"
    yield f"A classifier of {rows} x {columns} {colours} images; classes: {join_words(facts['classes'])}."
    yield ""
    yield f"Arm `{origin['arm']}` of the study `{origin['study']}`: {origin['summary']}."
    yield ""
    yield f"Backbone: `{backbone['name']}`, weights `{backbone['weights']}`. Probabilities are the mean of"
    yield f"{plural(len(facts['seeds']), 'fit')}, each with a seed of its own."


def _use() -> Iterator[str]:
    yield "```bash"
    yield "hirise-imb predict THIS_FOLDER IMAGES --out predictions.parquet"
    yield "```"
    yield ""
    yield "It expects images of the size, colours and map projection of its training data. A landmark of a kind that is"
    yield "not among the classes still gets one of them."


def _training_data(facts: ModelRecord) -> Iterator[str]:
    data = facts["training_data"]
    yield f"{facts['dataset']} (`{data['data']}`), splits {join_words(data['splits'])}, digest `{data['digest']}`."
    if facts["origin"]["arm"] == "baseline":
        yield "As published, it was trained on train and stopped early on val."
    yield ""
    yield "| class | landmarks |"
    yield "|---|---:|"
    for name, count in data["landmarks"].items():
        yield f"| {name} | {count:,} |"


def _scores(facts: ModelRecord, given: Results, nested: Results | None) -> Iterator[str]:
    scores, arm = facts["scores"], facts["origin"]["arm"]
    yield "On the landmarks of the test split, which were used neither in training nor in the choice of"
    yield "hyperparameters."
    if given.has_sources:
        yield "Intervals (95 %) are over sources, for classes with enough of them."
    else:
        yield "The data name no sources, so the intervals (95 %) are over images: they ignore that images of one"
        yield "observation are alike, and are too narrow where there are any."
    if nested is not None and arm == _chosen_name(nested) != _chosen_name(given):
        yield "The nested cross-validation chose this arm, and these landmarks take part in it, so the scores may be"
        yield "slightly too high."
    yield ""
    yield "| class | landmarks | sources | precision | recall | F1 | interval of F1 |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name, row in scores["classes"].items():
        sources = MISSING if row["sources"] is None else row["sources"]
        cells = (row["landmarks"], sources, *(score(row[key]) for key in ("precision", "recall", "f1")))
        yield f"| {name} | {' | '.join(map(str, cells))} | {_interval(row['f1_interval'])} |"
    yield ""
    yield f"Macro F1: {score(scores['macro_f1'])} ({_interval(scores['macro_f1_interval'])})."
    if scores["nested_macro_f1"] is not None:
        yield ""
        yield "The nested cross-validation of the study, which tests every source once, with fits of its own, gives"
        yield f"this arm a macro F1 of {score(scores['nested_macro_f1'])} (mean over single fits)."


def _chosen_name(results: Results) -> str | None:
    return None if results.chosen is None else results.chosen.name


def _confidence(facts: ModelRecord) -> Iterator[str]:
    point = facts["operating_point"]
    if point["precision"] is None:
        yield f"No test landmark has a prediction with a calibrated probability of {point['threshold']:g} or more."
        return
    yield f"For {percent(point['coverage'])} % of the test landmarks, the predicted class has a calibrated probability"
    yield f"of {point['threshold']:g} or more; {percent(point['precision'])} % of these predictions are right."
    yield ""
    yield "| class | predicted confidently | of these right | landmarks with a confident prediction |"
    yield "|---|---:|---:|---:|"
    for name, row in point["classes"].items():
        yield f"| {name} | {row['shown']} | {row['right']} | {row['decided']} of {row['landmarks']} |"


def _failures(facts: ModelRecord, given: Results) -> Iterator[str]:
    classes, scores = facts["classes"], facts["scores"]["classes"]
    untested = [name for name in classes if not scores[name]["landmarks"]]
    missed = [name for name in classes if scores[name]["landmarks"] and not scores[name]["recall"]]
    if untested:
        yield f"- No test landmark of {join_words(untested)}: how well it is recognised is unknown."
    if missed:
        yield f"- None of the test landmarks of {join_words(missed)} was recognised."
    arm = next(arm for arm in given.arms if arm.name == facts["origin"]["arm"])
    predicted = np.mean([fit.probabilities for fit in arm.predictions], axis=0).argmax(axis=1)
    confusion = confusion_matrix(given.labels, predicted, len(classes))
    np.fill_diagonal(confusion, 0)
    for cell in np.argsort(-confusion, axis=None, kind="stable")[:_N_CONFUSIONS].tolist():
        true, other = divmod(cell, len(classes))
        if n := int(confusion[true, other]):
            total = scores[classes[true]]["landmarks"]
            yield f"- {n} of {total} landmarks of {classes[true]} were taken for {classes[other]}."
    yield "- Images from other instruments, of another size or map projection were not tested."


def _sources(facts: ModelRecord) -> Iterator[str]:
    sources = facts["training_data"]["sources"]
    if not sources:
        yield "The training data names no sources: scores may be too high where its images overlap."
        return
    yield f"The model has seen {plural(len(sources), 'source')}; scores of landmarks from these would be too high:"
    yield ""
    yield textwrap.fill(f"{', '.join(sources)}.", _WIDTH)


def _licence(facts: ModelRecord) -> Iterator[str]:
    data = facts["training_data"]["data"]
    if data == SYNTHETIC:
        yield "Trained on synthetic landmarks, which this program draws: nothing in this model is about Mars."
    elif data == ARCHIVE:
        card = DATASETS[facts["dataset"]]
        yield f"Training data: {card.licence}. {card.citation}"
    else:
        yield "The licence of the training data is not known to this program: add it here before sharing the model."
    yield ""
    yield f"The weights of the backbone `{facts['backbone']['name']}` have a licence of their own."


def _interval(ends: list[float] | None) -> str:
    return MISSING if ends is None else f"{score(ends[0])} to {score(ends[1])}"
