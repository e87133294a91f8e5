"""Zips that were made to do harm: nothing is written outside the cache, and what they unpack to is bounded."""

from __future__ import annotations

import random
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from builders import valid_lines, write_data

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.load import load_data
from hirise_imb.utils.files import cache_root
from torture.attacks import Area, Attempt, Outcome, attack
from torture.refusals import list_files, read_or_refuse

Write = Callable[[zipfile.ZipFile], None]

_LINKS = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK)


def _data(attempt: Attempt) -> Path:
    """Returns a data folder whose images contain their own names."""

    def make(folder: Path) -> None:
        write_data(folder / "data", valid_lines())
        for image in (folder / "data" / HIRISE.layout.image_folder).iterdir():
            image.write_text(image.name)

    return attempt.prepare("archive-data", make) / "data"


def _zip(attempt: Attempt, add: Write, *, layout: bool = True) -> Path:
    """Returns a zip with data in the official layout or with an annotation table, and what `add` writes into it."""
    path, data = attempt.folder / "in" / "data.zip", _data(attempt)
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that occur twice
        for file in sorted(data.rglob("*")):
            if file.is_file() and (layout or file.suffix == ".jpg"):
                archive.write(file, file.relative_to(data))
        if not layout:
            rows = [f"{HIRISE.layout.image_folder}/{','.join(line.split())}" for line in valid_lines()]
            archive.writestr("labels.csv", "\n".join(["file,label,split", *rows]))
        add(archive)
    return path


def _unpack(attempt: Attempt, path: Path, *, layout: bool = True) -> Outcome:
    """Loads the zip; it is refused, or all its images are there unchanged. Nothing is written outside the cache."""
    before = list_files(attempt.folder)
    manifest = read_or_refuse(lambda: load_data(str(path), HIRISE))
    assert list_files(attempt.folder) == before
    leftovers = [file for file in cache_root().rglob("*.part") if file.is_dir()]
    assert not leftovers, leftovers
    if manifest is None:
        return Outcome.REFUSED
    assert layout  # the images of annotation tables are read, and those here are none
    images = {file.name for file in manifest.folder.iterdir()}
    assert images == set(manifest.table["image"])
    assert all(manifest.path(image).read_text() == image for image in images)
    return Outcome.CORRECT


def _name_outside(rng: random.Random, target: Path) -> str:
    depth = "../" * rng.randint(1, 12)
    name = rng.choice(["escaped.jpg", "map-proj-v3_2/escaped.jpg", "labels.csv", "escaped"])
    return rng.choice(
        [
            f"{depth}{name}",
            f"map-proj-v3_2/{depth}{name}",
            f"{target}/{name}",
            f"//server/share/{name}",
            f"C:{name}",
            f"C:/{name}",
            f"map-proj-v3_2\\..\\..\\{name}",
            f"map-proj-v3_2/{name}:stream",
            f"map-proj-v3_2/./{depth}{name}",
            f"..\0/{name}",
        ]
    )


@attack(Area.DATA, "Zip with a path that leads outside, a link, a device or a pipe", tries=100)
def zip_leads_outside(attempt: Attempt) -> Outcome:
    rng, layout = attempt.random, attempt.random.random() < 0.5

    def add(archive: zipfile.ZipFile) -> None:
        if rng.random() < 0.3:
            entry = zipfile.ZipInfo(rng.choice(["map-proj-v3_2/link.jpg", "map-proj-v3_2", "link"]))
            entry.external_attr = (rng.choice(_LINKS) | 0o777) << 16
            archive.writestr(entry, str(attempt.folder))
            return
        entry = zipfile.ZipInfo("x")
        entry.filename = entry.orig_filename = _name_outside(rng, attempt.folder)  # as it is, unlike ZipInfo(name)
        archive.writestr(entry, b"harm")

    outcome = _unpack(attempt, _zip(attempt, add, layout=layout), layout=layout)
    assert outcome == Outcome.REFUSED
    return outcome


@attack(Area.DATA, "Zip with names that occur twice, also in another case, or are a folder and a file", tries=60)
def zip_ambiguous_names(attempt: Attempt) -> Outcome:
    rng, layout = attempt.random, attempt.random.random() < 0.5
    name = f"{HIRISE.layout.image_folder}/{valid_lines()[rng.randrange(20)].split()[0]}"
    other = rng.choice(
        [
            name,
            name.upper(),
            f"{name}/",
            f"{name}/{Path(name).name}",
            HIRISE.layout.split_file,
            f"copy/{HIRISE.layout.split_file}",
            HIRISE.layout.label_file.upper(),
            f"{HIRISE.layout.image_folder}/cafe\u0301.jpg",
        ]
    )

    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(other, b"" if other.endswith("/") else b"other content")

    return _unpack(attempt, _zip(attempt, add, layout=layout), layout=layout)


@attack(Area.DATA, "Zip bomb: ratio of 1,000, overlapping members, a zip in the zip, 100,000 entries", tries=12)
def zip_bomb(attempt: Attempt) -> Outcome:
    rng = attempt.random
    kind = rng.choice(["image", "tables", "nested", "entries", "overlap"])
    folder, layout = HIRISE.layout.image_folder, kind != "tables"
    zeros = bytes(rng.randrange(1 << 24, 1 << 26))  # below the limit of a file

    def add(archive: zipfile.ZipFile) -> None:
        match kind:
            case "image":
                archive.writestr(f"{folder}/bomb.jpg", zeros)
            case "tables":
                for number in range(-(-(1 << 27) // len(zeros))):
                    archive.writestr(f"{number}.csv", zeros)
            case "nested":
                with archive.open(f"{folder}/inner.zip", "w") as file, zipfile.ZipFile(file, "w", 8) as inner:
                    inner.writestr("bomb.jpg", zeros)
            case "entries":
                for number in range(100_000):
                    archive.writestr(f"{folder}/{number}.jpg", b"")

    path = _zip(attempt, add, layout=layout)
    if kind == "overlap":
        _overlap(path, rng)
    outcome = _unpack(attempt, path, layout=layout)
    unpacked = sum(file.lstat().st_size for file in cache_root().rglob("*") if file.is_file())
    assert unpacked < 1 << 20, f"{unpacked:,} bytes were unpacked"
    return outcome


def _overlap(path: Path, rng: random.Random) -> None:
    """Lets most entries of a zip point to one local header, and declare a large size."""
    content = bytearray(path.read_bytes())
    headers = [found.start() for found in re.finditer(rb"PK\x01\x02", content)]
    (first,) = struct.unpack_from("<I", content, headers[0] + 42)
    for header in rng.sample(headers, len(headers) // 2):
        struct.pack_into("<I", content, header + 42, first)
        if rng.random() < 0.5:
            struct.pack_into("<I", content, header + 24, rng.randrange(1 << 26))
    path.write_bytes(content)


@attack(
    Area.DATA, "Zip whose directory lies: sizes, offsets, checksums, flags, ZIP64 fields; bytes changed, cut", tries=300
)
def zip_directory_lies(attempt: Attempt) -> Outcome:
    rng = attempt.random
    path = _zip(attempt, lambda _: None)
    content = bytearray(path.read_bytes())
    headers = [found.start() for found in re.finditer(rb"PK\x01\x02", content)]
    end = content.rindex(b"PK\x05\x06")
    for _ in range(rng.randint(1, 3)):
        match rng.randrange(6):
            case 0:  # a field of the central directory: flags, method, checksum, sizes, lengths, attributes, offset
                offset, form = rng.choice(
                    [
                        *((place, "<H") for place in (8, 10, 28, 30)),
                        *((place, "<I") for place in (16, 20, 24, 38, 42)),
                    ]
                )
                most = 2 ** (8 * struct.calcsize(form)) - 1
                struct.pack_into(
                    form, content, rng.choice(headers) + offset, rng.choice([0, 1, most, rng.randint(0, most)])
                )
            case 1:  # sizes and offset are said to be in a ZIP64 field, which is not there, or is anything
                header = rng.choice(headers)
                struct.pack_into("<II", content, header + 20, 2**32 - 1, 2**32 - 1)
                extra = struct.pack("<HHQQ", 1, rng.choice([16, 8, 24, 4]), *(rng.getrandbits(64) for _ in range(2)))
                place = header + 46 + struct.unpack_from("<H", content, header + 28)[0]
                if rng.random() < 0.5 and header == headers[-1]:
                    struct.pack_into("<H", content, header + 30, len(extra))
                    content[place:place] = extra
            case 2:  # the end of the directory
                offset, form = rng.choice([(8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")])
                most = 2 ** (8 * struct.calcsize(form)) - 1
                struct.pack_into(
                    form, content, content.rindex(b"PK\x05\x06") + offset, rng.choice([0, most, rng.randint(0, most)])
                )
            case 3:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case 4:
                position = rng.randrange(end)
                content[position : position + rng.randint(1, 40)] = rng.randbytes(rng.randint(1, 40))
                break  # the headers have moved
            case 5:
                del content[rng.randrange(len(content)) :]
                break
    path.write_bytes(content)
    return _unpack(attempt, path)
