"""The environment of a study: TensorFlow and its devices, versions, hardware, git revision."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hirise_imb.utils.interruption import is_interruption
from hirise_imb.utils.progress import say

PACKAGES = (
    "hirise-imb",
    "tensorflow",
    "keras",
    "optuna",
    "imbalanced-learn",
    "scikit-learn",
    "numpy",
    "numba",
    "pandas",
    "pillow",
)


def describe() -> dict[str, Any]:
    """Describes versions, hardware and the git revision of the package's source (None for an installed package)."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
        "git_revision": _git_revision(),
    }


def load_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, and logs which device it computes on.

    The messages come from C++ and bypass Python's logging, so they are intercepted at the file descriptor. They are
    printed if the import fails, or if the user has requested them by setting TF_CPP_MIN_LOG_LEVEL.
    """
    # TensorFlow imports parts of Keras, and those read the variable: to set it afterwards has no effect.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # With an unknown flag in this variable, TensorFlow ends the process, and only its message says why.
    intercept = level == "3" and "TF_XLA_FLAGS" not in os.environ
    with tempfile.TemporaryFile() as buffer:
        terminal = os.dup(2)
        if intercept:
            os.dup2(buffer.fileno(), 2)
        try:
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
        except Exception as error:
            # The import turns an interruption into an error of its own.
            if not is_interruption(error):
                buffer.seek(0)
                os.write(terminal, buffer.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    say(f"TensorFlow {tf.__version__} on {f'{len(gpus)} GPU' if gpus else 'the CPU (no GPU found)'}")


def _git_revision() -> str | None:
    source = Path(__file__).parent
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # If the package is installed inside another repository, that repository's revision says nothing about it.
    tracked = ["git", "-C", str(source), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
