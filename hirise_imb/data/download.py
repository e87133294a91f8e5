"""Getting the labelled landmarks: download with checksum and resume, import from a zip or a folder."""

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests

from hirise_imb import __version__
from hirise_imb.data.archive import unpack
from hirise_imb.data.hirise import SPLIT_FILE
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock
from hirise_imb.utils.progress import ProgressCallback, log, track

__all__ = ["HIRISE_V3_2", "Archive", "download_archive", "find_data_folder", "import_data", "is_archive", "unpack"]

USER_AGENT = f"hirise_imb/{__version__} (+https://doi.org/10.5281/zenodo.4002935)"
"""Names the project: Zenodo slows down clients that do not say who they are."""
CHUNK = 1 << 20
"""Bytes written at a time."""
TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
ATTEMPTS = 6
"""Failures in a row, none of which brought another `CHUNK`, after which a download is given up."""
FIRST_WAIT = 1.0
"""Seconds to wait after a request that brought something; each failure in a row doubles them."""
LONGEST_WAIT = 900.0
"""A server that asks for more seconds than this is not waited for."""
SPARE = 64 << 20
"""Bytes of the disk that a download leaves free."""


@dataclass(frozen=True)
class Archive:
    """A file that can be downloaded, and how to know that it is the right one."""

    name: str
    address: str
    size: int
    """Bytes."""
    md5: str
    page: str
    """Where a person finds the file, for a download by hand."""
    citation: str
    licence: str


HIRISE_V3_2 = Archive(
    name="hirise-map-proj-v3_2.zip",
    address="https://zenodo.org/records/4002935/files/hirise-map-proj-v3_2.zip?download=1",
    size=911_235_740,
    md5="236d9c627db1a5970e77a01a8c8a035a",
    page="https://zenodo.org/records/4002935",
    citation="Doran, G., Dunkel, E., Lu, S. and Wagstaff, K. (2020). Mars orbital image (HiRISE) labeled data set "
    "version 3.2. Zenodo. https://doi.org/10.5281/zenodo.4002935",
    licence="CC BY 4.0",
)


def download_archive(archive: Archive, folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Download into `folder / archive.name` unless it is there and whole; return the path.

    An interrupted download leaves `<name>.part` and goes on from there the next time.

    Raises:
        UserError: the download failed for good, what came is not the archive, the disk is full or can't be written
            to, or another file already has the archive's name.
    """
    target = folder / archive.name
    try:
        if not target.exists():
            ensure_folder(folder)
            with exclusive_lock(target):
                if not target.exists():  # another process may have fetched it while this one waited
                    _download(archive, target, sleep)
                    return target
        if fault := _fault(archive, target):
            raise _by_hand(archive, f"{target} is not the archive ({fault}), so delete it and fetch again, or")
    except OSError as error:
        raise _by_hand(
            archive, f"{target} can't be read or written ({error.strerror or error}); mend that, or"
        ) from error
    return target


def find_data_folder(folder: Path) -> Path:
    """Find the folder that holds the split file: `folder` itself or one at most two levels below.

    Raises:
        UserError: no such folder, or several at the same level.
    """
    next(folder.iterdir(), None)  # a folder that can't be read says so here, where glob would find nothing
    for pattern in (SPLIT_FILE, f"*/{SPLIT_FILE}", f"*/*/{SPLIT_FILE}"):
        found = sorted(path.parent for path in folder.glob(pattern) if "__MACOSX" not in path.parts)
        if len(found) > 1:
            raise UserError(f"{folder} holds several data sets ({', '.join(map(str, found))}): name one of them.")
        if found:
            return found[0]
    raise UserError(f"{folder} holds no {SPLIT_FILE}, at most two levels down: name a folder in the official layout.")


def import_data(source: Path, cache: Path) -> Path:
    """Return the data folder of `source`: a folder in the official layout, used where it is, or a zip, unpacked once.

    Raises:
        UserError: `source` is missing or not in the official layout, or can't be unpacked below `cache`.
    """
    if source.is_dir():
        return find_data_folder(source)
    if not source.is_file():
        raise UserError(f"{source} does not exist: name the zip of HiRISE v3.2 or the folder it was unpacked to.")
    try:
        digest = _digest(source, "sha256")
    except OSError as error:
        raise UserError(f"{source} can't be read ({error.strerror or error}): mend that and try again.") from error
    return unpack(source, cache / f"{source.stem}-{digest[:12]}")


def is_archive(path: Path, archive: Archive) -> bool:
    """Whether the file is the archive, by size and digest."""
    return path.is_file() and not _fault(archive, path)


class _Retry(Exception):
    """One request failed in a way that may pass."""

    def __init__(self, reason: str, asked: float = 0.0) -> None:
        super().__init__(reason)
        self.asked = asked
        """Seconds the server asks to wait."""


def _by_hand(archive: Archive, problem: str) -> UserError:
    return UserError(
        f"{problem} download {archive.name} by hand from {archive.page} ({archive.address}) "
        "and run `python -m hirise_imb.study data import FILE`."
    )


def _download(archive: Archive, target: Path, sleep: Callable[[float], None]) -> None:
    """Complete the `.part` file, check it, and give it its name."""
    part = target.with_name(f"{target.name}.part")
    if _size(part) > archive.size:
        part.unlink()
    _check_space(archive, part)
    _complete(archive, part, sleep)
    if fault := _fault(archive, part):
        part.unlink()
        raise _by_hand(
            archive, f"What was downloaded to {part} is not the archive ({fault}) and was deleted: try again, or"
        )
    part.replace(target)


def _check_space(archive: Archive, part: Path) -> None:
    needed = archive.size - _size(part) + SPARE
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise _by_hand(archive, f"{part.parent} needs {needed:,} free bytes and has {free:,}: free some, or")


def _complete(archive: Archive, part: Path, sleep: Callable[[float], None]) -> None:
    """Ask until every byte is there; only failures without a further `CHUNK` count towards giving up."""
    failures, best = 0, _size(part)
    with track(archive.name, archive.size, "MB", scale=1e6, already=best) as show:
        while (start := _size(part)) < archive.size:
            try:
                _request(archive, part, start, show)
            except _Retry as retry:
                reached = _size(part)
                failures, best = (0, reached) if reached >= best + CHUNK else (failures + 1, best)
                if failures == ATTEMPTS:
                    raise _by_hand(
                        archive, f"The download failed {ATTEMPTS} times in a row ({retry}): try later, or"
                    ) from retry
                wait = max(retry.asked, FIRST_WAIT * 2**failures)
                if wait > LONGEST_WAIT:
                    raise _by_hand(
                        archive, f"The server asks to wait {wait:,.0f} seconds ({retry}): try later, or"
                    ) from retry
                log.warning("%s: %s; trying again in %.0f s.", archive.name, retry, wait)
                sleep(wait)


def _request(archive: Archive, part: Path, start: int, show: ProgressCallback) -> None:
    """Ask once for what is missing from byte `start` on and write what comes."""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with requests.get(archive.address, headers=headers, stream=True, timeout=TIMEOUT) as response:
            first = _first_byte(archive, response, start)
            _receive(archive, response, part, first, show)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Retry(f"the connection failed: {type(error).__name__}") from error
    except requests.RequestException as error:
        raise _by_hand(archive, f"The download failed ({error}):") from error


def _first_byte(archive: Archive, response: requests.Response, start: int) -> int:
    """Where in the file the answer begins; zero where the server ignores the range."""
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code == 429 or response.status_code >= 500:
        raise _Retry(status, _seconds(response.headers.get("Retry-After", "")))
    if response.status_code not in (200, 206):
        raise _by_hand(archive, f"The download failed ({status}):")
    first = 0
    if response.status_code == 206:
        content_range = response.headers.get("Content-Range", "")
        if not re.match(rf"bytes {start}-", content_range):
            raise _Retry(f"asked for bytes from {start} on, the server sent {content_range!r}")
        first = start
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != archive.size - first:
        raise _Retry(f"the server offers {int(length):,} bytes instead of {archive.size - first:,}")
    return first


def _receive(archive: Archive, response: requests.Response, part: Path, first: int, show: ProgressCallback) -> None:
    """Write the body behind the `first` bytes of the `.part` file."""
    done = first
    with part.open("ab") as sink:
        sink.truncate(first)
        for piece in response.iter_content(CHUNK):
            sink.write(piece)
            done += len(piece)
            if done > archive.size:
                raise _by_hand(
                    archive, f"The server sends more than the {archive.size:,} bytes of the archive: try later, or"
                )
            show(done)
    if done < archive.size:
        raise _Retry(f"the connection ended after {done:,} of {archive.size:,} bytes")


def _seconds(retry_after: str) -> float:
    """Read a Retry-After header (seconds or an HTTP date); not above zero where it is missing, senseless or past."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()


def _fault(archive: Archive, path: Path) -> str:
    """What tells the file from the archive; empty where it is the archive."""
    if (size := _size(path)) != archive.size:
        return f"it has {size:,} bytes instead of {archive.size:,}"
    if (md5 := _digest(path, "md5")) != archive.md5:
        return f"its md5 is {md5} instead of {archive.md5}"
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
