"""One measurement in a process of its own: python -m benchmarks.child MODULE:FUNCTION ARGUMENTS RESULT."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import threading
from importlib import import_module
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_mb() -> float:
    """Memory that this process holds now, mapped files included."""
    return _status("VmRSS")


def _status(key: str) -> float:
    """An entry of /proc/self/status in MB; NaN where there is no such file."""
    found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


class _Private(threading.Thread):
    """Notes the most memory used without mapped files, which the system can drop at any time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, _status("RssAnon"))

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.most


def main() -> None:
    """Call the function with the arguments, a JSON object; write what it returns, and peak memory, to RESULT."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name, arguments, result = sys.argv[1:]
    module, function = name.split(":")
    watch = _Private()
    watch.start()
    figures = getattr(import_module(module), function)(**json.loads(arguments))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    Path(result).write_text(json.dumps(figures | {"peak_mb": peak, "private_mb": watch.stop()}))


if __name__ == "__main__":
    main()
