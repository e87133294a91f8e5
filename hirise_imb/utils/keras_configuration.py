"""The one configuration of Keras that studies compute with, whatever the user's own is."""

from __future__ import annotations

import os
import sys

from hirise_imb.utils.errors import UserError

BACKEND = "tensorflow"
"""The backend of Keras that networks are trained with."""
EPSILON = 1e-7
"""Keras' default for what it adds to denominators."""


def configure_keras() -> None:
    """Imports Keras, and sets everything that a `keras.json`, the environment or a calling program may have changed.

    Number format, epsilon and the order of dimensions change every feature, so that none of them may depend on a file
    in the user's home.

    Raises:
        UserError: Keras was imported with another backend, or rejects its own configuration.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND  # takes precedence over `keras.json`
    try:
        import keras
    except ValueError as error:
        raise UserError(
            f"Keras can't be imported ({error}): fix or delete keras.json in $KERAS_HOME or ~/.keras, and unset "
            f"variables that begin with KERAS_MAX."
        ) from error
    if (backend := keras.config.backend()) != BACKEND:
        raise UserError(
            f"Keras was imported with the backend {backend}, and backbones need {BACKEND}: set "
            f"KERAS_BACKEND={BACKEND} before Keras is imported."
        )
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(EPSILON)
    keras.config.set_image_data_format("channels_last")
    # A policy that Keras has derived from another number format stays when the format changes.
    keras.config.set_dtype_policy("float32")
