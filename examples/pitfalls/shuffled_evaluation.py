"""
Shuffled evaluation
===================

A data generator that shuffles returns images in one order, and labels are read in another. Predictions of a good model
are then compared with labels that don't belong to them. Nothing fails: accuracy even looks fine, because most landmarks
are ``other`` in any order. A published table for the HiRISE landmarks is of this kind (:doc:`../published-table`).

This example takes real predictions of the baseline from the example study and loses their pairing.
"""

# %%
# Predictions of the baseline
# ---------------------------
# Out-of-fold predictions on 3,392 real landmarks, seed 0. Run this anywhere inside a clone of the
# repository.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from hirise_imb.forensics import examine, read_published

ROOT = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "reports").is_dir())
REPORT = ROOT / "reports" / "real-sample"

table = pd.read_parquet(REPORT / "predictions" / "baseline.parquet").query("seed == 0")
classes = [name.removeprefix("p_").replace("_", " ") for name in table.columns if name.startswith("p_")]
labels, predicted = table["true_class"].to_numpy(), table["predicted_class"].to_numpy()


def f1_of_classes(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the F1 of each class, shape (n_classes,)."""
    return np.asarray(f1_score(labels, predicted, labels=classes, average=None, zero_division=0))


# %%
# Lose the pairing
# ----------------
# The same predictions, in the order of a generator that shuffles: 1,000 such orders show what to
# expect by chance.

rng = np.random.default_rng(0)
right = f1_of_classes(labels, predicted)
shuffled = np.array([f1_of_classes(labels, rng.permutation(predicted)) for _ in range(1000)])
one = rng.permutation(predicted)

print(f"paired:   accuracy {accuracy_score(labels, predicted):.3f}, macro F1 {right.mean():.3f}")
print(f"shuffled: accuracy {accuracy_score(labels, one):.3f}, macro F1 {f1_of_classes(labels, one).mean():.3f}")
pd.DataFrame({"paired": right, "shuffled, mean": shuffled.mean(axis=0)}, index=classes).round(3)

# %%
# The damage
# ----------
# Accuracy stays high, F1 of ``other`` becomes its share of the landmarks, and all rare classes
# look impossible. The conclusion "deep learning can't find rare landmarks" would be drawn from a
# bug.

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
low, high = np.quantile(shuffled, [0.005, 0.995], axis=0)
positions = np.arange(len(classes))
axes.hlines(positions, low, high, color="#c2410c", linewidth=7, label="shuffled, 99 % of orders")
axes.plot(right, positions, "o", color="#2563eb", label="paired")
axes.set(yticks=positions, yticklabels=classes, xlabel="F1", xlim=(-0.02, 1))
axes.invert_yaxis()
figure.legend(frameon=False, loc="outside upper right", ncols=2)
plt.show()

# %%
# Find it in a table
# ------------------
# If predictions and labels have nothing to do with each other, the precision of each class is its
# share of the labels, and the recalls of all classes add up to about 1. ``hirise-imb forensics``
# turns this into a test of any published table of precision, recall and F1: it finds the counts
# behind the rounded figures, and asks whether they are better than chance. Here is what it says
# about the published table of this baseline.

finding = examine(read_published())
print(f"The published table is {finding.verdict}: {finding.reason}")

# %%
# What this package does
# ----------------------
# Predictions and labels are paired by image name, and predictions in another order are refused.
# Every report applies the test above to its own tables.
