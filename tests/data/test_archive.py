"""Unpacking of tiny zips made here, and finding and importing data."""

import errno
import hashlib
import ntpath
import os
import posixpath
import re
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from builders import IMAGE_FOLDER, LABEL_FILE, names
from hypothesis import example, given
from hypothesis import strategies as st

from hirise_imb.data import archive
from hirise_imb.data.archive import unpack
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.resolve import find_data_folder, import_data
from hirise_imb.utils.errors import UserError

ROOT = "hirise-map-proj-v3_2/"
IMAGE = "map-proj-v3_2/ESP_011283_2265_RED-0030.jpg"
CONTENT = {
    "labels-map-proj_v3_2.txt": b"ESP_011283_2265_RED-0030.jpg 7\n",
    "labels-map-proj_v3_2_train_val_test.txt": (
        b"ESP_011283_2265_RED-0030.jpg 7 train\nESP_011283_2265_RED-0030-r90.jpg 7 train\n"
    ),
    "landmarks_map-proj-v3_2_classmap.csv": b"0,other\n",
    IMAGE: b"\xff\xd8" + bytes(3000) + b"\xff\xd9",
    "map-proj-v3_2/ESP_011283_2265_RED-0030-r90.jpg": b"\xff\xd8 another \xff\xd9",
}
SPLIT = "labels-map-proj_v3_2_train_val_test.txt"


# --- unpacking ---


def make_zip(
    path: Path,
    content: dict[str, bytes] = CONTENT,
    *,
    root: str = ROOT,
    extra: dict[str | zipfile.ZipInfo, bytes] | None = None,
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """A zip with `content` below `root`, a sidecar for each, and `extra` entries named as they are."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(root + name, data)
            head, _, tail = (root + name).rpartition("/")
            archive.writestr(f"__MACOSX/{head}/._{tail}", b"sidecar")
        for entry, data in (extra or {}).items():
            archive.writestr(entry, data, method)
    return path


def split_file(images: Iterable[str]) -> bytes:
    """A split file with these images."""
    return "".join(f"{image.rpartition('/')[2]} 0 train\n" for image in images).encode()


def set_in_directory(path: Path, name: str, offset: int, layout: str, value: int) -> None:
    """Overwrite one field of an entry in the zip's central directory."""
    data = bytearray(path.read_bytes())
    headers = [found.start() for found in re.finditer(rb"PK\x01\x02", data)]
    header = next(at for at in headers if data[at + 46 :].startswith(name.encode()))
    struct.pack_into(layout, data, header + offset, value)
    path.write_bytes(data)


def declare_size(path: Path, name: str, size: int) -> None:
    set_in_directory(path, name, 24, "<I", size)


def below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def assert_refused(zip_path: Path, match: str) -> None:
    """Unpacking fails with that message and leaves nothing behind, inside the folder or out of it."""
    place = zip_path.parent / "place"
    before = below(zip_path.parent)
    with pytest.raises(UserError, match=match):
        unpack(zip_path, place / "data", HIRISE.layout)
    assert names(place) == []
    assert below(zip_path.parent) == before


@pytest.fixture
def zip_path(tmp_path: Path) -> Path:
    return make_zip(tmp_path / "official.zip")


@pytest.mark.parametrize("root", ["", ROOT, "download/hirise-map-proj-v3_2/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unpacks_the_layout_and_nothing_else(root: str, method: int, tmp_path: Path) -> None:
    extra: dict[str | zipfile.ZipInfo, bytes] = {
        f"{root}._labels-map-proj_v3_2.txt": b"no",
        f"{root}map-proj-v3_2/._a.jpg": b"no",
        f"{root}map-proj-v3_2/deeper/a.jpg": b"no",
        f"{root}map-proj-v3_2/notes.txt": b"no",
        f"{root}setup.py": b"no",
        "elsewhere/map-proj-v3_2/a.jpg": b"no",
        f"__MACOSX/{SPLIT}": b"no",
    }
    if root:
        extra["map-proj-v3_2/beside.jpg"] = b"no"
    zip_path = make_zip(tmp_path / "a.zip", root=root, extra=extra, method=method)
    folder = tmp_path / "cache" / "new"
    assert unpack(zip_path, folder, HIRISE.layout) == folder
    assert below(folder) == CONTENT
    assert names(folder.parent) == ["new"]


def test_unpacking_again_does_nothing(zip_path: Path, tmp_path: Path) -> None:
    folder = unpack(zip_path, tmp_path / "data", HIRISE.layout)
    stamps = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    zip_path.unlink()
    assert unpack(zip_path, folder, HIRISE.layout) == folder
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == stamps


def test_a_folder_that_is_not_complete_is_neither_used_nor_replaced(zip_path: Path, tmp_path: Path) -> None:
    folder = unpack(zip_path, tmp_path / "data", HIRISE.layout)
    (folder / SPLIT).unlink()
    with pytest.raises(UserError, match=rf"data exists but lacks {SPLIT}: delete this folder and try again\.$"):
        unpack(zip_path, folder, HIRISE.layout)
    assert not (folder / SPLIT).exists()


def test_what_a_killed_run_left_is_replaced(zip_path: Path, tmp_path: Path) -> None:
    (tmp_path / ".data.part" / "map-proj-v3_2").mkdir(parents=True)
    (tmp_path / ".data.part" / "half.jpg").touch()
    assert below(unpack(zip_path, tmp_path / "data", HIRISE.layout)) == CONTENT
    assert names(tmp_path) == ["data", "official.zip"]


@pytest.mark.parametrize(
    "name",
    ["../x", "/abs", "a/../../x", "a/..", "..", "C:/x", "c:x", "//host/share/x", "..\\x", "a\\b", f"{ROOT}../x"],
)
def test_an_entry_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", extra={name: b"evil"})
    assert_refused(
        zip_path, rf"not safe to unpack \(its entry {re.escape(repr(name))} leads outside the archive\): get it"
    )


@given(st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "..\\", "\0", "x:y", "é"]) | st.text(max_size=3)))
@example(["a", "..", "b"])
def test_safe_names_stay_inside_on_every_system(parts: list[str]) -> None:
    name = "/".join(parts)
    if archive.is_safe(name):
        assert posixpath.normpath(posixpath.join("/base", name)).startswith("/base")
        assert ntpath.normpath(ntpath.join("D:\\base", name)).startswith("D:\\base")
        assert not {"\\", "\0", ":"} & set(name)
    else:
        assert name.startswith("/") or ".." in parts or {"\\", "\0", ":"} & set(name)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo(f"{ROOT}map-proj-v3_2/link.jpg")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    zip_path = make_zip(tmp_path / "a.zip", extra={entry: b"/etc/passwd"})
    assert_refused(zip_path, r"its entry '.*link\.jpg' is a link or a device\): get it from its source\.$")


def test_a_file_of_absurd_size_is_refused(zip_path: Path) -> None:
    declare_size(zip_path, ROOT + IMAGE, archive.MAX_MEMBER)
    assert_refused(zip_path, "is damaged")  # the limit itself is allowed: found out while unpacking
    declare_size(zip_path, ROOT + IMAGE, archive.MAX_MEMBER + 1)
    assert_refused(
        zip_path, r"0030\.jpg' unpacks to 67,108,865 bytes, over the limit of 67,108,864\): use the official"
    )


def test_images_that_the_split_file_does_not_name_are_not_unpacked(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | {"map-proj-v3_2/other.jpg": b"x"})
    assert below(unpack(zip_path, tmp_path / "data", HIRISE.layout)) == CONTENT


def test_more_than_200_times_the_size_of_the_zip_is_refused(tmp_path: Path) -> None:
    images = {f"map-proj-v3_2/{number:03}.jpg": b"x" for number in range(3)}
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | images | {SPLIT: split_file(images)})
    for name in images:
        declare_size(zip_path, ROOT + name, archive.MAX_MEMBER)
    assert_refused(zip_path, r"a\.zip unpacks to 201,\d{3},\d{3} bytes, over 200 times its size, as no zip of images")


def test_an_absurd_size_of_everything_is_refused(tmp_path: Path) -> None:
    images = {f"map-proj-v3_2/{number:03}.jpg": b"x" for number in range(320)}
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | images | {SPLIT: split_file([IMAGE, *images])})
    for name in images:
        declare_size(zip_path, ROOT + name, archive.MAX_MEMBER)
    assert_refused(
        zip_path, r"a\.zip unpacks to 21,474,8\d\d,\d{3} bytes, over the limit of 21,474,836,480: use the official"
    )


def test_needs_room_on_the_disk(zip_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(map(len, CONTENT.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total - 1))
    assert_refused(
        zip_path, rf"unpacks to {total:,} bytes but .*place has {total - 1:,} free: free some or use another disk"
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=total))
    assert below(unpack(zip_path, zip_path.parent / "data", HIRISE.layout)) == CONTENT


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_must_have_the_size_it_declares(difference: int, zip_path: Path) -> None:
    declare_size(zip_path, ROOT + IMAGE, len(CONTENT[IMAGE]) + difference)
    assert_refused(
        zip_path, r"official\.zip is damaged or not a zip file \(.*0030\.jpg.*\): copy or download it again\.$"
    )


def test_a_bomb_that_declares_little_takes_little_memory(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | {IMAGE: bytes(48 << 20)})
    declare_size(zip_path, ROOT + IMAGE, 100)
    tracemalloc.start()
    try:
        assert_refused(zip_path, "is damaged or not a zip file")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_an_encrypted_zip_is_refused(zip_path: Path) -> None:
    set_in_directory(zip_path, ROOT + IMAGE, 8, "<H", 0x1)
    assert_refused(zip_path, r"0030\.jpg' is encrypted\): use the official archive\.$")


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    assert_refused(make_zip(tmp_path / "a.zip", method=zipfile.ZIP_BZIP2), "is neither stored nor deflated")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", extra={ROOT + IMAGE: b"which?"})
    assert_refused(zip_path, r"0030\.jpg' occurs twice\): use the official archive\.$")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_zip_is_refused(keep: float, zip_path: Path) -> None:
    data = zip_path.read_bytes()
    zip_path.write_bytes(data[: int(keep * len(data))])
    assert_refused(
        zip_path, r"official\.zip is damaged or not a zip file \(File is not a zip file\): copy or download it again\.$"
    )


def test_a_wrong_byte_in_a_file_is_found(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    zip_path.write_bytes(zip_path.read_bytes().replace(b" another ", b" changed ", 1))
    assert_refused(
        zip_path, r"damaged or not a zip file \(Bad CRC-32 for file '.*-r90\.jpg'\): copy or download it again"
    )


def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    short = {name: data[:20] for name, data in CONTENT.items()}
    good = make_zip(tmp_path / "a.zip", short, root="").read_bytes()
    refused = 0
    for position in range(0, len(good), 7):  # hits every kind of field; all positions would take seconds
        data = bytearray(good)
        data[position] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(data)
        try:
            assert set(short) >= set(below(unpack(tmp_path / "a.zip", tmp_path / "data", HIRISE.layout)))
        except UserError:
            refused += 1
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    assert 0 < refused < len(good) // 7


@pytest.mark.parametrize("gone", sorted(set(CONTENT) - {name for name in CONTENT if name.endswith(".jpg")}))
def test_a_missing_official_file_is_named(gone: str, tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", {name: data for name, data in CONTENT.items() if name != gone})
    assert_refused(zip_path, rf"a\.zip lacks {gone}: use an archive in the official layout\.$")


def test_every_missing_official_file_is_named(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", {IMAGE: b""})
    assert_refused(zip_path, r"lacks labels-map-proj_v3_2\.txt, labels-.*_test\.txt, landmarks_.*_classmap\.csv: use")


def test_two_data_sets_in_one_zip_are_refused(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", extra={f"old/{SPLIT}": b""})
    assert_refused(zip_path, rf"contains several data sets \({ROOT}{SPLIT}, old/{SPLIT}\): keep one")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fails_half_way_leaves_nothing(
    number: int, zip_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfileobj

    def fails(source: IO[bytes], sink: IO[bytes], length: int) -> None:
        if "0030.jpg" in source.name:
            raise OSError(number, os.strerror(number))
        copy(source, sink, length)

    monkeypatch.setattr(shutil, "copyfileobj", fails)
    assert_refused(zip_path, rf"can't be unpacked into .*data \({os.strerror(number)}\): fix that and try again\.$")


def test_a_zip_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.zip", r"none\.zip can't be unpacked .* \(No such file or directory\)")


# --- finding and importing ---


def make_folder_source(folder: Path) -> Path:
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("depth", ["", "a", "a/b"])
def test_finds_the_data_folder_down_to_two_levels(depth: str, tmp_path: Path) -> None:
    make_folder_source(tmp_path / depth)
    sidecar = tmp_path / "__MACOSX" / SPLIT
    sidecar.parent.mkdir()
    sidecar.touch()
    assert find_data_folder(tmp_path, HIRISE.layout) == tmp_path / depth


@pytest.mark.parametrize("place", ["a/b/c", "../beside"])
def test_says_what_was_looked_for(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make_folder_source(folder / place)
    with pytest.raises(
        UserError, match=rf"folder does not contain {SPLIT}, at most two levels down: name a folder in the official"
    ):
        find_data_folder(folder, HIRISE.layout)


@pytest.mark.parametrize("below", ["map-proj-v3_2", "notes/old"])
def test_one_folder_too_deep_names_the_data_folder_above(below: str, tmp_path: Path) -> None:
    source = make_folder_source(tmp_path / "source")
    folder = source / below
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError) as caught:
        find_data_folder(folder, HIRISE.layout)
    assert str(caught.value) == (
        f"{folder} does not contain {SPLIT}, at most two levels down: name {source} instead, which does."
    )


def test_two_data_folders_are_one_too_many(tmp_path: Path) -> None:
    make_folder_source(tmp_path / "a")
    make_folder_source(tmp_path / "b")
    with pytest.raises(UserError, match=r"contains several data sets \(.*/a, .*/b\): name one of them\.$"):
        find_data_folder(tmp_path, HIRISE.layout)


def test_a_folder_is_used_where_it_is(tmp_path: Path) -> None:
    source = make_folder_source(tmp_path / "source" / ROOT)
    assert import_data(source.parent, tmp_path / "cache", HIRISE.layout) == source
    assert not (tmp_path / "cache").exists()
    assert below(source) == CONTENT


def test_a_zip_is_unpacked_once_by_its_content(zip_path: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(zip_path.read_bytes()).hexdigest()
    folder = import_data(zip_path, tmp_path / "cache", HIRISE.layout)
    assert folder == tmp_path / "cache" / f"official-{digest[:12]}"
    assert below(folder) == CONTENT
    stamp = folder.stat().st_mtime_ns
    assert import_data(zip_path, tmp_path / "cache", HIRISE.layout) == folder
    assert folder.stat().st_mtime_ns == stamp
    make_zip(zip_path, CONTENT | {IMAGE: b"new"})
    assert below(import_data(zip_path, tmp_path / "cache", HIRISE.layout))[IMAGE] == b"new"


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.zip does not exist: name a zip, a folder or an annotation table"):
        import_data(tmp_path / "none.zip", tmp_path / "cache", HIRISE.layout)


@pytest.mark.real
@pytest.mark.skipif("HIRISE_SAMPLE" not in os.environ, reason="HIRISE_SAMPLE names no real landmarks")
def test_the_real_sample(tmp_path: Path) -> None:
    folder = import_data(Path(os.environ["HIRISE_SAMPLE"]), tmp_path, HIRISE.layout)
    images = names(folder / IMAGE_FOLDER)
    labels = (folder / LABEL_FILE).read_text().splitlines()
    assert images == sorted(line.split()[0] for line in labels)
    assert names(folder) == sorted([*HIRISE.layout.files, IMAGE_FOLDER])
