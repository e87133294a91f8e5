"""Where a study ran: versions, hardware, git revision."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
