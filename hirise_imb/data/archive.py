"""A zip in the official layout -> a folder: every entry checked first, then everything or nothing.

A zip is somebody else's data: nothing in it may decide where a file lands or how much disk it takes.
"""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from hirise_imb.data.hirise import IMAGE_FOLDER, OFFICIAL_FILES, SPLIT_FILE
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock
from hirise_imb.utils.progress import track

CHUNK = 1 << 20
"""Bytes read at a time."""
MAX_MEMBER = 64 << 20
"""Most bytes one file may unpack to; an official image has some 14 kB, the longest label file 3 MB."""
MAX_TOTAL = 20 << 30
"""Most bytes all needed files together may unpack to; the official archive unpacks to about 1 GB."""

_IMAGE = re.compile(rf"{re.escape(IMAGE_FOLDER)}/(?!\._)[^/]+\.jpg")
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)
"""What `zipfile` raises on a file that is no zip, cut short or altered."""


def unpack(zip_path: Path, folder: Path) -> Path:
    """Extract the official layout from `zip_path` into the new folder `folder`, and return it: the data folder.

    The folder that holds the split file inside the zip becomes `folder`; sidecars (`__MACOSX`, `._*`) and whatever
    else lies in the zip stay there. A folder that is complete already is left as it is.

    Raises:
        UserError: the zip can't be read, is damaged, unsafe, too big or not in the official layout; the disk is full
            or can't be written to; or `folder` exists and is not complete.
    """
    try:
        if not folder.exists():
            ensure_folder(folder.parent)
            with exclusive_lock(folder):
                if not folder.exists():  # another process may have made it while this one waited
                    _unpack_new(zip_path, folder)
    except OSError as error:
        reason = f"{error.strerror or error}"
        raise UserError(f"{zip_path} can't be unpacked into {folder} ({reason}): mend that and try again.") from error
    if missing := [name for name in OFFICIAL_FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} is there but lacks {', '.join(missing)}: delete this folder and try again.")
    return folder


def is_safe(name: str) -> bool:
    """Whether a zip entry's name stays below the folder it is joined to, on every operating system."""
    path = PureWindowsPath(name)  # knows what every system takes for a root or a drive
    return not (path.anchor or ".." in path.parts or set(name) & set("\\:\0"))


def _unpack_new(zip_path: Path, folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    if part.exists():  # left by a process that was killed: the lock says that nobody is at work on it
        shutil.rmtree(part)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = _members(zip_path, archive.infolist())
            _check_sizes(zip_path, members, folder.parent)
            _extract(archive, members, part)
        part.rename(folder)
    except _DAMAGE as error:
        raise UserError(f"{zip_path} is damaged or no zip file ({error}): copy or download it again.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _members(zip_path: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Check every entry; return those of the official layout by their path inside the data folder."""
    for entry in entries:
        _check_entry(zip_path, entry)
    files = [entry for entry in entries if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")]
    root = _root(zip_path, [entry.filename for entry in files])
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        path = entry.filename.removeprefix(root)
        if entry.filename.startswith(root) and (path in OFFICIAL_FILES or _IMAGE.fullmatch(path)):
            _check_member(zip_path, entry, repeated=path in members)
            members[path] = entry
    _check_official(zip_path, members)
    return members


def _check_official(zip_path: Path, names: Iterable[str]) -> None:
    present = set(names)
    if missing := [name for name in OFFICIAL_FILES if name not in present]:
        raise UserError(f"{zip_path} lacks {', '.join(missing)}: use an archive in the layout of HiRISE v3.2.")


def _check_entry(zip_path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse an entry that could land outside the folder, needed or not: who made it meant harm."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if not is_safe(entry.orig_filename):
        problem = "leads outside the archive"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a link or a device"
    else:
        return
    raise UserError(
        f"{zip_path} is not safe to unpack (its entry {entry.orig_filename!r} {problem}): get it from its source."
    )


def _root(zip_path: Path, names: list[str]) -> str:
    """The folder inside the zip that holds the split file, with its slash; empty at the top."""
    found = [name for name in names if PurePosixPath(name).name == SPLIT_FILE]
    if not found:
        _check_official(zip_path, (PurePosixPath(name).name for name in names))  # raises: names all that is missing
    if len(found) > 1:
        raise UserError(f"{zip_path} holds several data sets ({', '.join(found)}): keep one of them in the zip.")
    return found[0].removesuffix(SPLIT_FILE)


def _check_member(zip_path: Path, entry: zipfile.ZipInfo, *, repeated: bool) -> None:
    if entry.flag_bits & 0x1:
        problem = "is encrypted"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "is neither stored nor deflated"
    elif entry.file_size > MAX_MEMBER:
        problem = f"unpacks to {entry.file_size:,} bytes, over the limit of {MAX_MEMBER:,}"
    elif repeated:
        problem = "is there twice"
    else:
        return
    raise UserError(f"{zip_path} can't be used (its entry {entry.filename!r} {problem}): use the official archive.")


def _check_sizes(zip_path: Path, members: dict[str, zipfile.ZipInfo], place: Path) -> None:
    total = sum(entry.file_size for entry in members.values())
    if total > MAX_TOTAL:
        raise UserError(
            f"{zip_path} unpacks to {total:,} bytes, over the limit of {MAX_TOTAL:,}: use the official archive."
        )
    free = shutil.disk_usage(place).free
    if total > free:
        raise UserError(
            f"{zip_path} unpacks to {total:,} bytes but {place} has {free:,} free: free some or use another disk."
        )


def _extract(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    (folder / IMAGE_FOLDER).mkdir(parents=True)
    done = 0
    total = sum(entry.file_size for entry in members.values())
    with track("unpacking", total, "MB", scale=1e6) as show:
        for path, entry in members.items():
            _extract_one(archive, entry, folder / path)
            done += entry.file_size
            show(done)


def _extract_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Write one file, piece by piece: `zipfile` never gives more than declared, and checks the CRC at the end."""
    with archive.open(entry) as source, path.open("xb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)
        if sink.tell() != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than declared")
