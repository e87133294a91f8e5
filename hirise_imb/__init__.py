"""Experiments on class imbalance for landmarks in orbital images of Mars."""

__version__ = "0.1.0"
