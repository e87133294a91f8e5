"""
Comparing without a control
===========================

A remedy is tuned, and then compared with a published baseline that was not. Its gain is the sum of what the remedy does
and of what tuning does, and tuning may be all of it. The control has the same search, the same number of trials and the
same final fits, but no remedy.

The figures are those of the example study: real landmarks, 141 sources, nested cross-validation.
"""

# %%
# Two comparisons of the same strategies
# --------------------------------------
# Run this anywhere inside a clone of the repository.

import json
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "reports").is_dir())
REPORT = ROOT / "reports" / "real-sample"

summary = json.loads((REPORT / "summary.json").read_text(encoding="utf-8"))
strategies = [arm for arm in summary["arms"] if arm["role"] == "strategy" and not arm["identical_to"]]
strategies.sort(key=lambda arm: arm["scores"]["macro_f1"]["mean"])


def count_better(other: str) -> tuple[int, int]:
    """Returns the numbers of strategies above an arm, and of those significantly so (Holm)."""
    gains = [(arm[other]["scores"]["macro_f1"], arm[other]["test"]) for arm in strategies]
    significant = [gain for gain, test in gains if gain > 0 and test["p_holm"] <= summary["inference"]["alpha"]]
    return sum(gain > 0 for gain, _ in gains), len(significant)


for other, name in (("vs_baseline", "published baseline"), ("vs_control", "tuned control")):
    better, significant = count_better(other)
    print(f"{name:19} {better:2} of {len(strategies)} strategies are above it, {significant:2} significantly")

control = next(arm for arm in summary["arms"] if arm["name"] == summary["control"])
gain = control["vs_baseline"]["scores"]["macro_f1"]
print(f"The control itself gains {gain:+.3f} over the baseline, without any remedy.")

# %%
# The damage
# ----------
# The strategies and their predictions are the same on both sides. What looks like the effect of
# remedies on the left is mostly that of tuning, which the control has as well.

figure, columns = plt.subplots(1, 2, figsize=(8, 6), sharey=True, sharex=True, layout="constrained")
for axes, other in zip(columns, ("vs_baseline", "vs_control"), strict=True):
    for row, arm in enumerate(strategies):
        interval, gain = arm[other]["interval"], arm[other]["scores"]["macro_f1"]
        significant = arm[other]["test"]["p_holm"] <= summary["inference"]["alpha"]
        colour = "#c2410c" if significant and other == "vs_baseline" else "#2563eb" if significant else "#808080"
        axes.hlines(row, interval["low"], interval["high"], color=colour)
        axes.plot(gain, row, "o", color=colour, markersize=5)
    axes.axvline(0, color="#404040", linewidth=1)
    axes.set(title=f"against the {other.removeprefix('vs_')}", xlabel="difference of macro F1, 95 % interval")
columns[0].set(yticks=range(len(strategies)), yticklabels=[arm["name"] for arm in strategies])
plt.show()

# %%
# What this package does
# ----------------------
# Every study has the control ``plain``. A strategy that averages several fits is compared with a
# control that averages as many. Both comparisons are reported, each with Holm's correction for the
# number of strategies.
