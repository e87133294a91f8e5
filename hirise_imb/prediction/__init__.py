"""Saved models: their files, and predictions of images that nobody has labelled."""
