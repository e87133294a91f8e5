"""The machine that the benchmarks ran on, without names or paths."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def describe(seed: int) -> dict[str, Any]:  # noqa: ARG001  (every measurement is given a seed)
    """What `hirise_imb` tells of itself and its surroundings, the processor's model, and memory."""
    from hirise_imb.utils import environment

    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return environment.describe() | {
        "processor": model[1].strip() if model else "unknown",
        "memory": f"{memory / 2**30:.0f} GiB",
    }
