"""Downloads a published archive: with checksum, and resumed after an interruption."""

import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests

from hirise_imb import __version__
from hirise_imb.data.dataset import Archive
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import digest_of, ensure_folder, exclusive_lock
from hirise_imb.utils.progress import ProgressCallback, log, track

USER_AGENT = f"hirise_imb/{__version__} (+https://doi.org/10.5281/zenodo.4002935)"
"""Names the project, since Zenodo throttles anonymous clients."""
CHUNK = 1 << 20
"""Bytes written at a time."""
TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
ATTEMPTS = 6
"""Consecutive failures without another `CHUNK` received, after which a download is given up."""
FIRST_WAIT = 1.0
"""Seconds to wait before a retry; each consecutive failure without progress doubles it."""
LONGEST_WAIT = 900.0
"""Longest wait in seconds; if the server requests a longer one, the download is given up."""
SPARE = 64 << 20
"""Bytes that a download leaves free on the disk."""


def download_archive(archive: Archive, folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Downloads into `folder / archive.name` unless the complete file is there; returns its path.

    An interrupted download leaves `<name>.part` and continues from there the next time.

    Raises:
        UserError: the download failed for good, the server sent another file, the disk is full or can't be written
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
            raise _manual_download_error(
                archive, f"{target} is not the archive ({fault}), so delete it and fetch again, or"
            )
    except OSError as error:
        raise _manual_download_error(
            archive, f"{target} can't be read or written ({error.strerror or error}); fix that, or"
        ) from error
    return target


def is_archive(path: Path, archive: Archive) -> bool:
    """Returns whether the file is the archive, judged by size and digest."""
    return path.is_file() and not _fault(archive, path)


class _Retry(Exception):
    """A request failed for a reason that may be temporary."""

    def __init__(self, reason: str, requested_wait: float = 0.0) -> None:
        super().__init__(reason)
        self.requested_wait = requested_wait
        """Seconds that the server asks the client to wait."""


def _manual_download_error(archive: Archive, problem: str) -> UserError:
    return UserError(
        f"{problem} download {archive.name} by hand from {archive.page} ({archive.address}) "
        "and run `hirise-imb data import FILE`."
    )


def _download(archive: Archive, target: Path, sleep: Callable[[float], None]) -> None:
    """Completes the `.part` file, verifies it, and renames it."""
    part = target.with_name(f"{target.name}.part")
    if _size(part) > archive.size:
        part.unlink()
    _check_space(archive, part)
    _complete(archive, part, sleep)
    if fault := _fault(archive, part):
        part.unlink()
        raise _manual_download_error(
            archive, f"The file downloaded to {part} is not the archive ({fault}) and was deleted: try again, or"
        )
    part.replace(target)


def _check_space(archive: Archive, part: Path) -> None:
    needed = archive.size - _size(part) + SPARE
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise _manual_download_error(
            archive, f"{part.parent} needs {needed:,} free bytes and has {free:,}: free some, or"
        )


def _complete(archive: Archive, part: Path, sleep: Callable[[float], None]) -> None:
    """Requests the missing bytes until the file is complete; a failure after another `CHUNK` restarts the count."""
    failures, best = 0, _size(part)
    with track(archive.name, archive.size, "MB", scale=1e6, already=best) as show:
        while (start := _size(part)) < archive.size:
            try:
                _request(archive, part, start, show)
            except _Retry as retry:
                reached = _size(part)
                failures, best = (0, reached) if reached >= best + CHUNK else (failures + 1, best)
                if failures == ATTEMPTS:
                    raise _manual_download_error(
                        archive, f"The download failed {ATTEMPTS} times in a row ({retry}): try later, or"
                    ) from retry
                wait = max(retry.requested_wait, FIRST_WAIT * 2**failures)
                if wait > LONGEST_WAIT:
                    raise _manual_download_error(
                        archive, f"The server asks to wait {wait:,.0f} seconds ({retry}): try later, or"
                    ) from retry
                log.warning("%s: %s; trying again in %.0f s.", archive.name, retry, wait)
                sleep(wait)


def _request(archive: Archive, part: Path, start: int, show: ProgressCallback) -> None:
    """Requests the bytes from `start` on once, and writes what is received."""
    # Uncompressed, so that ranges and lengths are those of the file.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with _open(archive, headers) as response:
            first = _first_byte(archive, response, start)
            _receive(archive, response, part, first, show)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Retry(f"the connection failed: {type(error).__name__}") from error
    except requests.RequestException as error:
        raise _manual_download_error(archive, f"The download failed ({error}):") from error


def _open(archive: Archive, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(archive.address, headers=headers, stream=True, timeout=TIMEOUT)
    except ValueError as error:  # the server sent the client to an address that is none
        raise _manual_download_error(archive, f"The download failed ({str(error)[:100]}):") from error


def _first_byte(archive: Archive, response: requests.Response, start: int) -> int:
    """Returns the offset of the response in the file: zero if the server ignores the range."""
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code == 429 or response.status_code >= 500:
        raise _Retry(status, _parse_retry_after(response.headers.get("Retry-After", "")))
    if response.status_code not in (200, 206):
        raise _manual_download_error(archive, f"The download failed ({status}):")
    first = 0
    if response.status_code == 206:
        content_range = response.headers.get("Content-Range", "")
        if not re.match(rf"bytes {start}-", content_range):
            raise _Retry(f"the server sent {content_range!r} instead of the bytes from {start} on")
        first = start
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and length != str(archive.size - first):
        raise _Retry(f"the server offers {length[:20]} bytes instead of {archive.size - first:,}")
    return first


def _receive(archive: Archive, response: requests.Response, part: Path, first: int, show: ProgressCallback) -> None:
    """Writes the body after the `first` bytes of the `.part` file."""
    done = first
    with part.open("ab") as sink:
        sink.truncate(first)
        for piece in response.iter_content(CHUNK):
            sink.write(piece)
            done += len(piece)
            if done > archive.size:
                raise _manual_download_error(
                    archive, f"The server sends more than the {archive.size:,} bytes of the archive: try later, or"
                )
            show(done)
    if done < archive.size:
        raise _Retry(f"the connection ended after {done:,} of {archive.size:,} bytes")


def _parse_retry_after(retry_after: str) -> float:
    """Returns the seconds of a Retry-After header (number or HTTP date): zero or less if absent, malformed or past."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()


def _fault(archive: Archive, path: Path) -> str:
    """Returns how the file differs from the archive, or an empty string if it does not."""
    if (size := _size(path)) != archive.size:
        return f"it has {size:,} bytes instead of {archive.size:,}"
    if (md5 := digest_of(path, "md5")) != archive.md5:
        return f"its md5 is {md5} instead of {archive.md5}"
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
