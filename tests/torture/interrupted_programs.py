"""Programs that attacks interrupt: a download from a server of the attack, and a study that is killed at a file.

interrupted_programs.py fetch ADDRESS SIZE MD5
interrupted_programs.py kill-at-file NUMBER SUFFIX WORD ...
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hirise_imb import study
from hirise_imb.data import resolve
from hirise_imb.data.dataset import Archive


def fetch(address: str, size: int, md5: str) -> int:
    """Downloads and unpacks the archive of the attack in place of the official one."""
    archive = Archive("landmarks.zip", address, size, md5, "https://example.org")
    resolve._official_archive = lambda: archive
    return study.main(["data", "fetch"])


def kill_at_file(number: int, suffix: str, words: list[str]) -> int:
    """Runs the command line and kills it when a file is complete, but does not have its name yet.

    Args:
        number: how many files are written before, counted from 0; odd numbers leave half of the file.
        suffix: suffix of the files that count; empty for all.
        words: arguments of the command line.
    """
    import study_launcher  # noqa: F401  (the toy backbone)
    from handmade import without_figures

    counter = itertools.count()
    replace = Path.replace

    def replace_or_die(self: Path, target: str | Path) -> Path:
        if self.suffix.endswith(suffix) and next(counter) == number:
            if number % 2:
                os.truncate(self, self.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = replace_or_die  # type: ignore[method-assign, assignment]
    with without_figures():
        return study.main(words)


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program == "fetch":
        sys.exit(fetch(rest[0], int(rest[1]), rest[2]))
    sys.exit(kill_at_file(int(rest[0]), rest[1], rest[2:]))
