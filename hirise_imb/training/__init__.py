"""Training: turns recipes and cached features into scores and predictions, with the stages that recipes share fitted
once."""

from hirise_imb.training.context import TrainingContext
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.trainer import CrossValidation, Run, Trainer

__all__ = ["CrossValidation", "OnEpoch", "Outcome", "Run", "Trainer", "TrainingContext"]
