"""
Leakage by source
=================

Landmarks that were cut from one observation share light, season and terrain. If a random split puts some of them into
training and others into validation, a classifier can recognise the *observation*, and the validation score says little
about new observations.

Here the truth is known: features are a small class effect, a larger effect of the source, and noise. The score on
sources that were never seen is computed from 300 new ones.
"""

# %%
# Landmarks of 40 sources
# -----------------------
# As in the HiRISE landmarks, a source shows mostly one kind of terrain: each has one rare class,
# besides ``other``.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_CLASSES, WIDTH = 4, 32
CENTRES = np.random.default_rng(0).normal(0, 0.35, (N_CLASSES, WIDTH))


def draw_landmarks(n_sources: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws features, labels and sources of 20 landmarks a source; class 0 is the majority."""
    sources = np.repeat(np.arange(n_sources), 20)
    rare_class = rng.integers(1, N_CLASSES, n_sources)
    labels = np.where(rng.random(len(sources)) < 0.7, 0, rare_class[sources])
    of_source = rng.normal(0, 1, (n_sources, WIDTH))
    of_source_and_class = rng.normal(0, 1, (n_sources, 2, WIDTH))
    features = CENTRES[labels] + of_source[sources] + of_source_and_class[sources, (labels > 0).astype(int)]
    return features + rng.normal(0, 1, features.shape), labels, sources


# %%
# Three scores of the same classifier
# -----------------------------------
# A random cross-validation, a cross-validation that never divides a source, and the score on 300
# new sources.

CLASSIFIERS = {
    "nearest neighbour": KNeighborsClassifier(n_neighbors=1),
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
}
SPLITS = {"random folds": StratifiedKFold(5, shuffle=True, random_state=0), "folds of sources": GroupKFold(5)}


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the mean F1 over all classes."""
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


scores: dict[tuple[str, str], list[float]] = {
    (name, way): [] for name in CLASSIFIERS for way in (*SPLITS, "new sources")
}
for repeat in range(10):
    rng = np.random.default_rng(repeat + 1)
    features, labels, sources = draw_landmarks(40, rng)
    new_features, new_labels, _ = draw_landmarks(300, rng)
    for name, classifier in CLASSIFIERS.items():
        for way, split in SPLITS.items():
            predicted = cross_val_predict(classifier, features, labels, cv=split, groups=sources)
            scores[name, way].append(macro_f1(labels, predicted))
        predicted = classifier.fit(features, labels).predict(new_features)
        scores[name, "new sources"].append(macro_f1(new_labels, predicted))

for (name, way), values in scores.items():
    print(f"{name:20} {way:17} macro F1 {np.mean(values):.2f}")

# %%
# The damage
# ----------
# Random folds promise a score that no new observation delivers; the more a classifier can
# memorise, the larger the promise. Folds of sources are close to the truth.

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for offset, way, colour in (
    (-0.25, "random folds", "#c2410c"),
    (0, "folds of sources", "#2563eb"),
    (0.25, "new sources", "#404040"),
):
    means = [np.mean(scores[name, way]) for name in CLASSIFIERS]
    bars = axes.barh(np.arange(len(CLASSIFIERS)) + offset, means, height=0.22, color=colour, label=way)
    axes.bar_label(bars, fmt="%.2f", padding=3)
axes.set(yticks=range(len(CLASSIFIERS)), yticklabels=CLASSIFIERS, xlim=(0, 1.1))
axes.set(xlabel="macro F1, mean over 10 data sets")
axes.invert_yaxis()
figure.legend(frameon=False, loc="outside upper right", ncols=3)
plt.show()

# %%
# What this package does
# ----------------------
# Splits, folds, confidence intervals and tests never divide a source. Data whose split does is
# refused, and the message names the source. Variants of a landmark (rotated, mirrored) have its
# source, so that they stay together too.
