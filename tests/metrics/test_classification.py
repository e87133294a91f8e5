"""Scores, against scikit-learn and against loops that follow the definitions word by word."""

import numpy as np
import pandas as pd
import pytest
from builders import predict, quick
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics

from hirise_imb.metrics import calibration, classification
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.registry import METRICS, Evaluation, Metric, evaluate, label_of, register

EIGHT = list(range(8))
OFFICIAL_TEST = (1482, 89, 66, 49, 16, 7, 42, 42)
Array = np.ndarray

# Few classes make classes absent or never predicted, many make all sorts of errors.
PAIRS = st.integers(1, 7).flatmap(
    lambda most: st.lists(st.tuples(st.integers(0, most), st.integers(0, 7)), min_size=1, max_size=60)
)


def table(labels: Array) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{n}.jpg" for n in range(len(labels))], "label": labels, "source": "one"})


def evaluation(predictions: Predictions, images: pd.DataFrame) -> Evaluation:
    return Evaluation.of(predictions, images, range(1, 8))


def both(pairs: list[tuple[int, int]]) -> tuple[Array, Array]:
    true, predicted = np.array(pairs).T
    return true, predicted


def random_probabilities(seed: int, rows: int, sharpness: float) -> Array:
    logits = sharpness * np.random.default_rng(seed).normal(size=(rows, 8))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@quick
@given(PAIRS)
def test_confusion_and_scores_of_classes_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = both(pairs)
    counts = classification.confusion_matrix(true, predicted, 8)
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(true, predicted, labels=EIGHT))
    expected = metrics.precision_recall_fscore_support(true, predicted, labels=EIGHT, zero_division=0)
    found = classification.per_class_scores(counts)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        np.testing.assert_allclose(found[name], values, atol=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.uint64])
def test_labels_of_any_integer_type_are_counted(kind: type[np.integer]) -> None:
    labels = np.array([19, 19, 3], kind)
    counts = classification.confusion_matrix(labels, labels[::-1], 20)
    assert (counts[19, 19], counts[19, 3], counts[3, 19], counts.sum()) == (1, 1, 1, 3)


@quick
@given(PAIRS)
def test_scores_of_one_number_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = both(pairs)

    def f1(labels: list[int], average: str) -> float:
        return float(metrics.f1_score(true, predicted, labels=labels, average=average, zero_division=0))

    counts = classification.confusion_matrix(true, predicted, 8)
    assert classification.macro_f1(counts) == pytest.approx(f1(EIGHT, "macro"))
    assert classification.macro_f1(counts, range(1, 8)) == pytest.approx(f1(EIGHT[1:], "macro"))
    assert classification.weighted_f1(counts) == pytest.approx(f1(EIGHT, "weighted"))
    assert classification.accuracy(counts) == pytest.approx(metrics.accuracy_score(true, predicted))
    # The mean recall of the classes that occur; scikit-learn warns where others are predicted.
    occurring = sorted(set(true.tolist()))
    recall = metrics.recall_score(true, predicted, labels=occurring, average="macro", zero_division=0)
    assert classification.balanced_accuracy(counts) == pytest.approx(recall)
    if set(predicted.tolist()) <= set(occurring) and len(occurring) > 1:
        expected = metrics.balanced_accuracy_score(true, predicted)
        assert classification.balanced_accuracy(counts) == pytest.approx(expected)


@quick
@given(PAIRS, st.lists(st.integers(0, 4), min_size=8, max_size=8), st.integers(0, 5))
def test_classes_with_few_sources_are_left_out(pairs: list[tuple[int, int]], sources: list[int], minimum: int) -> None:
    true, predicted = both(pairs)
    counts = classification.confusion_matrix(true, predicted, 8)
    chosen = [k for k in EIGHT if sources[k] >= minimum]
    found = classification.macro_f1_with_sources(counts, np.array(sources), minimum)
    if chosen:
        assert found == pytest.approx(
            metrics.f1_score(true, predicted, labels=chosen, average="macro", zero_division=0)
        )
    else:
        assert found == 0


@quick
@given(PAIRS)
def test_kappa_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = both(pairs)
    assume(len(set(true.tolist()) | set(predicted.tolist())) > 1)
    found = classification.cohen_kappa(classification.confusion_matrix(true, predicted, 8))
    assert found == pytest.approx(metrics.cohen_kappa_score(true, predicted), abs=1e-12)


def test_kappa_is_zero_where_chance_leaves_nothing_to_reach() -> None:
    assert classification.cohen_kappa(classification.confusion_matrix([3, 3], [3, 3], 8)) == 0


def test_shares_of_a_class_never_predicted_and_of_a_class_that_does_not_occur() -> None:
    # Class 5 occurs and is never predicted; class 6 is predicted and never occurs; class 7 neither.
    true = [0, 1, 2, 3, 4, 5, 5]
    found = classification.per_class_scores(classification.confusion_matrix(true, [0, 1, 2, 3, 4, 6, 0], 8))
    assert found["precision"].tolist() == [0.5, 1, 1, 1, 1, 0, 0, 0]
    assert found["recall"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert found["f1"] == pytest.approx([2 / 3, 1, 1, 1, 1, 0, 0, 0])
    # The mean is over eight classes, whatever occurs.
    perfect = classification.confusion_matrix([0, 1], [0, 1], 8)
    assert classification.macro_f1(perfect) == 2 / 8


def test_calling_everything_other_on_the_official_test_split() -> None:
    true = np.repeat(EIGHT, OFFICIAL_TEST)
    images = table(true)
    found = evaluate(evaluation(predict(images["image"], np.zeros_like(true)), images))
    assert found["accuracy"] == pytest.approx(0.8265, abs=5e-5)
    assert found["macro_f1"] == pytest.approx(0.113, abs=5e-4)
    assert found["macro_f1_rare"] == 0
    assert found["balanced_accuracy"] == 1 / 8
    assert found["kappa"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_perfect_predictor_reaches_one(seed: int | None) -> None:
    true = np.repeat(EIGHT, OFFICIAL_TEST)
    images = table(true)
    if seed is not None:
        images = images.sample(frac=1, random_state=seed)
    found = evaluation(predict(images["image"], images["label"], confidence=1.0), images)
    assert evaluate(found) == {
        "macro_f1": 1.0,
        "macro_f1_rare": 1.0,
        "macro_f1_several": 0.0,  # all landmarks are of one source
        "weighted_f1": 1.0,
        "accuracy": 1.0,
        "balanced_accuracy": 1.0,
        "kappa": 1.0,
        "log_loss": 0.0,
        "calibration_error": 0.0,
        "calibration_error_tempered": 0.0,
        "risk_coverage_area": 0.0,
    }
    assert {name: values.tolist() for name, values in classification.per_class_scores(found.confusion).items()} == {
        name: [1.0] * 8 for name in ("precision", "recall", "f1")
    }


@pytest.mark.parametrize("change", ["order", "fewer", "more", "other"])
def test_predictions_of_other_images_or_in_another_order_are_refused(change: str) -> None:
    images = table(np.repeat(EIGHT, 3))
    names, labels = images["image"].tolist(), images["label"].tolist()
    order = {"order": [1, 0, *range(2, 24)], "fewer": range(23), "more": [*range(24), 0], "other": range(24)}[change]
    chosen = [names[n] for n in order]
    if change == "other":
        chosen[-1] = "99.jpg"
    predictions = predict(chosen, [labels[n] for n in order])
    with pytest.raises(
        ValueError, match=r"^predictions and labels name different images, or the same in another order$"
    ):
        evaluation(predictions, images)


def test_a_score_is_of_rows_of_the_catalogue_in_any_index() -> None:
    images = table(np.array([0, 1, 2, 7])).set_index(pd.Index([40, 3, 7, 9]))
    found = evaluation(predict(images["image"], [0, 1, 1, 7]), images)
    assert found.confusion.sum() == 4
    assert found.confusion[2, 1] == 1
    assert evaluate(found)["log_loss"] == pytest.approx(-(3 * np.log(0.9) + np.log(0.1 / 7)) / 4)


def test_an_evaluation_counts_the_sources_of_every_class_of_the_data_set() -> None:
    images = table(np.array([0, 0, 1, 2])).assign(source=["one", "two", "one", "one"]).astype({"label": np.uint8})
    found = evaluation(predict(images["image"], [0, 0, 1, 1]), images)
    assert found.class_sources.tolist() == [2, 1, 1, 0, 0, 0, 0, 0]
    assert found.labels.dtype == np.int64
    assert found.temperature == 1
    scores = evaluate(found)
    assert scores["calibration_error_tempered"] == pytest.approx(scores["calibration_error"])


def test_a_registered_metric_is_evaluated_and_has_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Metric("n_2", "number of landmarks", "n", lambda evaluation: len(evaluation.labels))
    monkeypatch.setitem(METRICS, "n_2", metric)  # so that the registry is restored
    del METRICS["n_2"]
    assert register(metric) is metric
    assert METRICS["n_2"] is metric
    images = table(np.array([0, 1, 1]))
    assert evaluate(evaluation(predict(images["image"], [0, 1, 0]), images))["n_2"] == 3
    assert [label_of(name) for name in ("n_2", "macro_f1", "f1", "unknown")] == [
        "number of landmarks",
        "macro F1",
        "F1",
        "unknown",
    ]


@pytest.mark.parametrize("name", ["macro_f1", "recall"])
def test_a_name_of_a_metric_is_taken_once(name: str) -> None:
    with pytest.raises(ValueError, match=f"^there is already a metric '{name}'$"):
        register(Metric(name, "a", "b", lambda _: 0.0))


@pytest.mark.parametrize("name", ["Macro", "macro F1", "2nd", "", "_f1", "f1-score"])
def test_a_name_that_is_no_key_is_refused(name: str) -> None:
    message = f"^name must be lower-case letters, digits and underscores, got '{name}'$"
    with pytest.raises(ValueError, match=message):
        Metric(name, "a", "b", lambda _: 0.0)


def test_the_label_is_the_most_probable_class() -> None:
    probabilities = np.eye(8, dtype=np.float32)[[3, 0, 7]]
    assert Predictions(("a", "b", "c"), probabilities).labels().tolist() == [3, 0, 7]


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0, 5))
def test_log_loss_agrees_with_scikit_learn(seed: int, rows: int, sharpness: float) -> None:
    labels = np.random.default_rng(seed + 1).integers(0, 8, rows)
    probabilities = random_probabilities(seed, rows, sharpness)
    expected = metrics.log_loss(labels, probabilities, labels=EIGHT)
    assert calibration.log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    single = calibration.log_loss(labels, probabilities.astype(np.float32))
    assert single == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_log_loss_of_an_underflow_is_finite_and_large() -> None:
    found = calibration.log_loss(np.array([1]), np.eye(8, dtype=np.float32)[:1])
    assert found == pytest.approx(126 * np.log(2))  # float32's smallest normal number is 2 ** -126


def calibration_by_loop(labels: Array, probabilities: Array, bins: int) -> float:
    """Guo et al. 2017, equations 2 to 5, in words: sum over bins of share x |accuracy - mean confidence|."""
    total = 0.0
    for b in range(bins):
        members = []
        for label, row in zip(labels, probabilities, strict=True):
            confidence = max(row)
            if b / bins <= confidence < (b + 1) / bins or (b == bins - 1 and confidence == 1):
                members.append((float(row.tolist().index(confidence) == label), confidence))
        if members:
            accuracy = sum(hit for hit, _ in members) / len(members)
            mean = sum(confidence for _, confidence in members) / len(members)
            total += len(members) / len(labels) * abs(accuracy - mean)
    return total


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.1, 5), st.sampled_from([1, 2, 10, 15]))
def test_calibration_error_agrees_with_a_plain_loop(seed: int, rows: int, sharpness: float, bins: int) -> None:
    labels = np.random.default_rng(seed + 1).integers(0, 8, rows)
    probabilities = random_probabilities(seed, rows, sharpness)
    found = calibration.expected_calibration_error(labels, probabilities, bins)
    assert found == pytest.approx(calibration_by_loop(labels, probabilities, bins), abs=1e-9)
    assert 0 <= found <= 1


@pytest.mark.parametrize(("hits", "expected"), [(8, 0.1), (9, 0.0), (10, 0.1), (0, 0.9)])
def test_calibration_error_is_the_gap_of_confidence_and_accuracy(hits: int, expected: float) -> None:
    labels = np.array([0] * hits + [1] * (10 - hits))
    predictions = predict([f"{n}.jpg" for n in range(10)], [0] * 10, confidence=0.9)
    found = evaluate(evaluation(predictions, table(labels)))["calibration_error"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_calibration_error_uses_fifteen_bins() -> None:
    # A miss and a hit cancel in one bin: 0.61 and 0.66 share one of 15 bins, not of 20; 0.65 and 0.68 one of 10 only.
    rows = ["a", "b"]
    labels = np.array([0, 1])

    def found(*confidences: float) -> float:
        parts = [predict(row, [0], confidence) for row, confidence in zip(rows, confidences, strict=True)]
        joined = Predictions(("0.jpg", "1.jpg"), np.concatenate([part.probabilities for part in parts]))
        return evaluate(evaluation(joined, table(labels)))["calibration_error"]

    assert found(0.61, 0.66) == pytest.approx(abs(0.61 + 0.66 - 1) / 2, abs=1e-6)
    assert found(0.65, 0.68) == pytest.approx((1 - 0.65 + 0.68) / 2, abs=1e-6)
