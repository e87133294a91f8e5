"""Where a study runs: TensorFlow and its devices, versions, hardware, git revision."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hirise_imb.utils.progress import say

PACKAGES = (
    "hirise-imb",
    "tensorflow",
    "keras",
    "optuna",
    "imbalanced-learn",
    "scikit-learn",
    "numpy",
    "pandas",
    "pillow",
)


def describe() -> dict[str, Any]:
    """Versions, hardware and the git revision of the package's source (null for an installed package)."""
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
    """Import TensorFlow without its start-up lines, and say what it will compute on.

    The lines come from C++ and ignore Python's logging; they are kept back by file descriptor, and shown after all
    where the import fails, or where the user asked for them by setting TF_CPP_MIN_LOG_LEVEL.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        if level == "3":
            os.dup2(kept.fileno(), 2)
        try:
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
        except Exception:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    say(f"TensorFlow {tf.__version__} on {f'{len(gpus)} GPU' if gpus else 'the processor, no GPU'}")


def _git_revision() -> str | None:
    source = Path(__file__).parent
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # A package installed below somebody else's repository is not that repository's revision.
    tracked = ["git", "-C", str(source), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
