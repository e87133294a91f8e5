"""Saved models: their files, and predictions of images that nobody has labelled."""

from hirise_imb.prediction.model_file import SavedModel, read_model, write_model
from hirise_imb.prediction.predictor import ModelOutput, Predictor
from hirise_imb.prediction.table import read_predictions

__all__ = ["ModelOutput", "Predictor", "SavedModel", "read_model", "read_predictions", "write_model"]
