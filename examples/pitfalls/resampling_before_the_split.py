"""
Resampling before the split
===========================

Over-sampling repeats images of rare classes, and SMOTE interpolates between them. If this is done before the data is
divided into folds, copies of one image are in training *and* in validation, and the validation score of rare classes
measures memory.

To see the damage alone, the labels in this example are random: there is nothing to learn, and an honest score can't be
better than chance.
"""

# %%
# Random labels
# -------------

import matplotlib.pyplot as plt
import numpy as np
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

SHARES = [0.82, 0.08, 0.06, 0.04]


def draw_noise(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws features and labels of 600 landmarks that have nothing to do with each other."""
    return rng.normal(size=(600, 16)), rng.choice(len(SHARES), size=600, p=SHARES)


# %%
# Before or inside the folds
# --------------------------
# Wrong: resample everything, then cross-validate. Right: resample the training part of each fold,
# which the pipeline of imbalanced-learn does.

SAMPLERS = {"over-sampling": RandomOverSampler(random_state=0), "SMOTE": SMOTE(random_state=0)}
CLASSIFIERS = {
    "nearest neighbours": KNeighborsClassifier(3),
    "random forest": RandomForestClassifier(20, random_state=0),
}
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def rare_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the mean F1 of the rare classes."""
    return float(f1_score(labels, predicted, labels=range(1, len(SHARES)), average="macro", zero_division=0))


scores: dict[tuple[str, str], list[float]] = {}
for repeat in range(3):
    features, labels = draw_noise(np.random.default_rng(repeat))
    for sampling, sampler in SAMPLERS.items():
        more_features, more_labels = sampler.fit_resample(features, labels)
        for name, classifier in CLASSIFIERS.items():
            before = cross_val_predict(classifier, more_features, more_labels, cv=FOLDS)
            inside = cross_val_predict(make_pipeline(sampler, classifier), features, labels, cv=FOLDS)
            row = f"{sampling}, {name}"
            scores.setdefault((row, "before the split"), []).append(rare_f1(more_labels, before))
            scores.setdefault((row, "inside the folds"), []).append(rare_f1(labels, inside))

for (row, way), values in scores.items():
    print(f"{row:34} {way:17} mean F1 of rare classes {np.mean(values):.2f}")

# %%
# The damage
# ----------
# On pure noise, resampling before the split reports F1 near 1 for classes that nobody can
# recognise.

figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
rows = list(dict.fromkeys(row for row, _ in scores))
for offset, way, colour in ((-0.18, "before the split", "#c2410c"), (0.18, "inside the folds", "#2563eb")):
    bars = axes.barh(
        np.arange(len(rows)) + offset, [np.mean(scores[row, way]) for row in rows], height=0.32, color=colour, label=way
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
axes.set(yticks=range(len(rows)), yticklabels=rows, xlim=(0, 1.15))
axes.set(xlabel="mean F1 of the rare classes (labels are random)")
axes.invert_yaxis()
figure.legend(frameon=False, loc="outside upper right", ncols=3)
plt.show()

# %%
# What this package does
# ----------------------
# A sampling is part of a recipe, and a recipe is applied to the training part of a fold only.
# Scores count one canonical image for each landmark. Every strategy must pass a check that changes
# the held-out labels and features: no fitted number may move.
