"""The files of a report as its readers see them: read once, checked against their digests, locked while written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file, exclusive_lock

AGAIN = "run its study again to rewrite it"
"""What to do about a report that can't be used, as the end of a message."""


class InconsistentReport(UserError):
    """The files of a report do not belong together: one was edited, or another process is replacing the report."""


@contextmanager
def lock_report(folder: Path) -> Iterator[None]:
    """Locks the report in a folder, which exists, against other processes that write it.

    A folder that can't be written, such as one on a read-only disk, is not locked, for this process can't change it.
    """
    with exclusive_lock(folder / "report.html") if os.access(folder, os.W_OK) else nullcontext():
        yield


class ReportFiles:
    """The files of a report, checked against the digests in its summary.

    Scores are computed again from these files, so a file that was edited would contradict the page without notice. A
    file is read once: what is checked is what is used, also while another process replaces the file.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Stores the folder, and the digests (SHA-256) that its summary lists by file name."""
        self.folder, self._digests = folder, digests

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            InconsistentReport: it is missing, or not the file that was written with the report.
        """
        path = self.folder / name
        check_regular_file(path)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise InconsistentReport(f"{path} is missing: restore it, or {AGAIN}.") from error
        if hashlib.sha256(content).hexdigest() != self._digests.get(name):
            raise InconsistentReport(
                f"{path} is not the file that was written with the report: restore it, or {AGAIN}."
            )
        return content

    def refuse(self, name: str, fault: object) -> UserError:
        """Returns the error for a file that has the right digest, but content that no report has."""
        reason = " ".join(str(fault).split())  # some of pandas have several lines
        return UserError(f"{self.folder / name} is not a file that this program writes ({reason}): {AGAIN}.")
