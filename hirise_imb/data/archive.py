"""Unpacks a zip with a data set: every entry is checked first, then all files are extracted or none.

A zip is untrusted input: nothing in it may decide where a file is written or how much disk it takes.
"""

import io
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from hirise_imb.data.dataset import Layout
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file, ensure_folder, exclusive_lock
from hirise_imb.utils.progress import track

CHUNK = 1 << 20
"""Bytes read at a time."""
MAX_MEMBER = 64 << 20
"""Largest number of bytes of one unpacked file; an official image has about 14 kB, the longest label file 3 MB."""
MAX_SHARD = 4 << 30
"""Largest number of bytes of a parquet file, which may contain thousands of images."""
MAX_TOTAL = 20 << 30
"""Largest number of bytes of all unpacked files together; the official archive has about 1 GB."""

MAX_RATIO = 200
"""Largest ratio of the bytes of all unpacked files to those of the zip, where the former are more than twice
`MAX_MEMBER`. Images hardly shrink, and text files to a thirtieth at most."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".csv", ".parquet", ".json")
"""Suffixes of the files that are unpacked where the layout is not the official one."""

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)
"""Exceptions that `zipfile` raises on a file that is not a zip, truncated or altered."""


def unpack(zip_path: Path, folder: Path, layout: Layout | None) -> Path:
    """Extracts the files of a layout from `zip_path` into the new data folder `folder`, and returns it.

    The folder that contains the split file inside the zip becomes `folder`; only the text files and the images that the
    split file names are extracted. Without a layout, all images, tables and names of classes are extracted with their
    paths. A folder that is complete already is left as it is.

    Raises:
        UserError: the zip can't be read, is damaged, unsafe, too big or not in the layout; the disk is full or
            can't be written to; or `folder` exists and is not complete.
    """
    try:
        if not folder.exists():
            ensure_folder(folder.parent)
            with exclusive_lock(folder):
                if not folder.exists():  # another process may have created it meanwhile
                    _unpack_new(zip_path, folder, layout)
    except OSError as error:
        reason = f"{error.strerror or error}"
        raise UserError(f"{zip_path} can't be unpacked into {folder} ({reason}): fix that and try again.") from error
    if layout and (missing := [name for name in layout.files if not (folder / name).is_file()]):
        raise UserError(f"{folder} exists but lacks {', '.join(missing)}: delete this folder and try again.")
    return folder


def has_split_file(zip_path: Path, layout: Layout) -> bool:
    """Returns whether a zip contains the split file of a layout; False if it can't be read."""
    check_regular_file(zip_path)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            return any(PurePosixPath(name).name == layout.split_file for name in archive.namelist())
    except (OSError, *DAMAGE):
        return False


def is_safe(name: str) -> bool:
    """Returns whether a zip entry's name stays below the folder it is joined to, on every operating system."""
    path = PureWindowsPath(name)  # covers roots and drives of every system
    return not (path.anchor or ".." in path.parts or set(name) & set("\\:\0"))


def _unpack_new(zip_path: Path, folder: Path, layout: Layout | None) -> None:
    part = folder.with_name(f".{folder.name}.part")
    if part.exists():  # left by a process that was killed: because of the lock, no other process is working on it
        shutil.rmtree(part)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = _members(zip_path, archive, layout)
            _check_sizes(zip_path, members, layout, folder.parent)
            _extract(archive, members, part)
        part.rename(folder)
    except DAMAGE as error:
        raise UserError(f"{zip_path} is damaged or not a zip file ({error}): copy or download it again.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _members(zip_path: Path, archive: zipfile.ZipFile, layout: Layout | None) -> dict[str, zipfile.ZipInfo]:
    """Checks every entry, and returns those of the layout by their path inside the data folder."""
    entries = archive.infolist()
    for entry in entries:
        _check_entry(zip_path, entry)
    files = [entry for entry in entries if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")]
    if layout is None:
        root = ""
        wanted = re.compile(rf"(?!\.)(.*/(?!\.))?[^/]*(?i:{'|'.join(map(re.escape, _SUFFIXES))})")
    else:
        root = _root(zip_path, [entry.filename for entry in files], layout)
        image = rf"{re.escape(layout.image_folder)}/(?!\._)[^/]+\.jpg"
        wanted = re.compile("|".join([*map(re.escape, layout.files), image]))
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        path = entry.filename.removeprefix(root)
        if entry.filename.startswith(root) and wanted.fullmatch(path):
            _check_member(zip_path, entry, layout, repeated=path in members)
            members[path] = entry
    if layout is None:
        if not members:
            raise UserError(f"{zip_path} contains neither images nor tables: name another zip, or a folder.")
        return members
    _check_complete(zip_path, members, layout)
    named = set(layout.files)
    with archive.open(members[layout.split_file]) as split_file:
        # Bytes that are not UTF-8 are reported when the unpacked file is read.
        for line in io.TextIOWrapper(split_file, "utf-8-sig", "replace"):
            named.update(f"{layout.image_folder}/{name}" for name in line.split()[:1])
    return {path: entry for path, entry in members.items() if path in named}


def _check_complete(zip_path: Path, names: Iterable[str], layout: Layout) -> None:
    present = set(names)
    if missing := [name for name in layout.files if name not in present]:
        raise UserError(f"{zip_path} lacks {', '.join(missing)}: use an archive in the official layout.")


def _check_entry(zip_path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuses an entry that could be written outside the folder, even an unneeded one: it was made to do harm."""
    # The upper 16 bits are the Unix mode. `orig_filename` is checked, since `filename` has been cut at a null byte and
    # its separators have been replaced.
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


def _root(zip_path: Path, names: list[str], layout: Layout) -> str:
    """Returns the folder inside the zip that contains the split file, with a trailing slash; empty if it is the top."""
    matches = [name for name in names if PurePosixPath(name).name == layout.split_file]
    if not matches:
        _check_complete(zip_path, (PurePosixPath(name).name for name in names), layout)  # raises
    if len(matches) > 1:
        raise UserError(f"{zip_path} contains several data sets ({', '.join(matches)}): keep one of them in the zip.")
    return matches[0].removesuffix(layout.split_file)


def _advise(layout: Layout | None) -> str:
    """Returns what to do about a zip that can't be used."""
    return "unpack it and name the folder" if layout is None else "use the official archive"


def _check_member(zip_path: Path, entry: zipfile.ZipInfo, layout: Layout | None, *, repeated: bool) -> None:
    if entry.flag_bits & 0x1:
        problem = "is encrypted"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "is neither stored nor deflated"
    elif entry.file_size > (limit := MAX_SHARD if entry.filename.lower().endswith(".parquet") else MAX_MEMBER):
        problem = f"unpacks to {entry.file_size:,} bytes, over the limit of {limit:,}"
    elif repeated:
        problem = "occurs twice"
    else:
        return
    raise UserError(f"{zip_path} can't be used (its entry {entry.filename!r} {problem}): {_advise(layout)}.")


def _check_sizes(zip_path: Path, members: dict[str, zipfile.ZipInfo], layout: Layout | None, place: Path) -> None:
    total = sum(entry.file_size for entry in members.values())
    if total > MAX_TOTAL:
        raise UserError(f"{zip_path} unpacks to {total:,} bytes, over the limit of {MAX_TOTAL:,}: {_advise(layout)}.")
    if total > max(2 * MAX_MEMBER, MAX_RATIO * zip_path.stat().st_size):
        raise UserError(
            f"{zip_path} unpacks to {total:,} bytes, over {MAX_RATIO} times its size, as no zip of images does: "
            f"{_advise(layout)}."
        )
    free = shutil.disk_usage(place).free
    if total > free:
        raise UserError(
            f"{zip_path} unpacks to {total:,} bytes but {place} has {free:,} free: free some or use another disk."
        )


def _extract(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    for parent in {(folder / path).parent for path in members}:
        parent.mkdir(parents=True, exist_ok=True)
    done = 0
    total = sum(entry.file_size for entry in members.values())
    with track("unpacking", total, "MB", scale=1e6) as show:
        for path, entry in members.items():
            _extract_one(archive, entry, folder / path)
            done += entry.file_size
            show(done)


def _extract_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Writes one file in chunks: `zipfile` never yields more than declared, and checks the CRC at the end."""
    # Mode x: on a file system that ignores case, two entries may have the same path.
    with archive.open(entry) as source, path.open("xb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)
        if sink.tell() != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than declared")
