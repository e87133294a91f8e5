"""Fits recipes: the compiled training step, the epoch loop, the stages of a recipe, and the trainer on top."""

from hirise_imb.training.context import TrainingContext
from hirise_imb.training.epoch_loop import Job
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.trainer import Run, Trainer

__all__ = ["Job", "Outcome", "Run", "Trainer", "TrainingContext"]
