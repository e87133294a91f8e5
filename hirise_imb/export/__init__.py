"""Export of a saved model as one network from pixels to calibrated probabilities, for other runtimes."""
