"""Ends unpromising trainings early, by comparison with the finished trials of earlier rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from hirise_imb.training.epoch_loop import OnEpoch

_MIN_TRIALS = 5
"""Number of complete trials below which nothing is pruned: they show which values are normal at an epoch."""

_FIRST_EPOCH = 6
"""First epoch at which a training may end: before it, slow starters look bad."""


class RoundPruner:
    """Prunes the trainings of one round, by the median of the earlier trials at the same epoch."""

    def __init__(self, earlier_trials: Sequence[FrozenTrial]) -> None:
        """Takes the finished trials of all earlier rounds."""
        # Trials of the same round must not judge each other: which of them is ahead at an epoch is chance. So the
        # pruner works in a separate study, which contains the earlier rounds and a shadow of each trial of this one.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_MIN_TRIALS, n_warmup_steps=_FIRST_EPOCH)
        self._shadow_study = optuna.create_study(direction="maximize", pruner=pruner)
        self._shadow_study.add_trials(earlier_trials)

    def watch(self, report: Callable[[int, float], None]) -> OnEpoch:
        """Returns a callback for one training, which reports each epoch and decides whether the training continues.

        Args:
            report: function that is called with the epoch and the best validation macro F1 so far.
        """
        shadow_trial = self._shadow_study.ask()

        def on_epoch(epoch: int, best_f1: float) -> bool:
            report(epoch, best_f1)
            shadow_trial.report(best_f1, epoch)
            return not shadow_trial.should_prune()

        return on_epoch
