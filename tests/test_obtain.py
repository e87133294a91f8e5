"""The archive: download from a real local server, unpacking of tiny zips made here."""

import errno
import hashlib
import io
import logging
import ntpath
import os
import posixpath
import re
import shutil
import stat
import struct
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hirise_imb import __version__, obtain, unpacking
from hirise_imb.errors import UserError
from hirise_imb.obtain import HIRISE_V3_2, Archive, fetch, find_data_folder, import_data, unpack

CHUNK = 1 << 10
BODY = bytes(i * i % 251 for i in range(64 * CHUNK))
PAGE = "https://example.org/records/1"
BY_HAND = (
    rf"by hand from {PAGE} \(http://127\.0\.0\.1:\d+/a\.zip\) and run `python -m hirise_imb\.study data import FILE`"
)
ROOT = "hirise-map-proj-v3_2/"
IMAGE = "map-proj-v3_2/ESP_011283_2265_RED-0030.jpg"
CONTENT = {
    "labels-map-proj_v3_2.txt": b"ESP_011283_2265_RED-0030.jpg 7\n",
    "labels-map-proj_v3_2_train_val_test.txt": b"ESP_011283_2265_RED-0030.jpg 7 train\n",
    "landmarks_map-proj-v3_2_classmap.csv": b"0,other\n",
    IMAGE: b"\xff\xd8" + bytes(3000) + b"\xff\xd9",
    "map-proj-v3_2/ESP_011283_2265_RED-0030-r90.jpg": b"\xff\xd8 another \xff\xd9",
}
SPLIT = "labels-map-proj_v3_2_train_val_test.txt"


# --- a server that does what a test tells it ---


class Server(HTTPServer):
    """Answers each request by the next of `answers`; the last one is for all that follow."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Callable[[Handler], None]] = [whole]
        self.seen: list[dict[str, str]] = []
        self.served = 0

    @property
    def archive(self) -> Archive:
        address = f"http://127.0.0.1:{self.server_port}/a.zip"
        return Archive("a.zip", address, len(BODY), hashlib.md5(BODY).hexdigest(), PAGE, "Somebody", "CC BY 4.0")

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers.items()))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def first(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.server.served += len(body)


def partial(handler: Handler, first: int, body: bytes) -> None:
    """A right answer to a range request, of which only `body` arrives."""
    size = len(BODY)
    headers = {"Content-Length": str(size - first)}
    if "Range" in handler.headers:
        headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
    handler.reply(206 if "Range" in handler.headers else 200, headers, body)


def whole(handler: Handler) -> None:
    partial(handler, handler.first, BODY[handler.first :])


def breaks_after(count: int) -> Callable[[Handler], None]:
    return lambda handler: partial(handler, handler.first, BODY[handler.first :][:count])


def ignores_range(handler: Handler) -> None:
    handler.reply(200, {"Content-Length": str(len(BODY))}, BODY)


def wrong_byte(handler: Handler) -> None:
    partial(handler, handler.first, BODY[handler.first : -1] + b"\xff")


def other_range(handler: Handler) -> None:
    partial(handler, handler.first - 1, BODY[handler.first - 1 :])


def without_length(body: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(200, {}, body)


def web_page(handler: Handler) -> None:
    handler.reply(200, {"Content-Length": "12"}, b"maintenance!")


def status(code: int, retry_after: str | None = None) -> Callable[[Handler], None]:
    headers = {"Content-Length": "0"} | ({"Retry-After": retry_after} if retry_after is not None else {})
    return lambda handler: handler.reply(code, headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(obtain, "CHUNK", CHUNK)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def assert_whole(path: Path, folder: Path) -> None:
    assert path == folder / "a.zip"
    assert path.read_bytes() == BODY
    assert names(folder) == ["a.zip"]


# --- download ---


def test_the_facts_of_the_archive() -> None:
    facts = (HIRISE_V3_2.name, HIRISE_V3_2.size, HIRISE_V3_2.md5)
    assert facts == ("hirise-map-proj-v3_2.zip", 911_235_740, "236d9c627db1a5970e77a01a8c8a035a")
    assert HIRISE_V3_2.address == f"{HIRISE_V3_2.page}/files/{HIRISE_V3_2.name}?download=1"
    assert "4002935" in HIRISE_V3_2.page


def test_downloads_into_a_new_folder_naming_the_project(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    assert_whole(fetch(server.archive, folder), folder)
    assert server.ranges == [None]
    assert server.seen[0]["User-Agent"] == f"hirise_imb/{__version__} (+https://doi.org/10.5281/zenodo.4002935)"


def test_goes_on_where_the_connection_broke(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [breaks_after(len(BODY) // 2), whole]
    assert_whole(fetch(server.archive, tmp_path, sleep=waits.append), tmp_path)
    first, second = server.ranges
    assert first is None
    start = int(re.fullmatch(r"bytes=(\d+)-", second or "")[1])  # type: ignore[index]
    assert len(BODY) // 2 - CHUNK <= start <= len(BODY) // 2
    assert len(BODY) <= server.served <= len(BODY) + CHUNK
    assert waits == [1.0]


def test_goes_on_with_the_part_of_a_killed_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY[:5000])
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.ranges == ["bytes=5000-"]
    assert server.served == len(BODY) - 5000


def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY)
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.seen == []


def test_a_part_that_is_too_long_is_discarded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY + b"!")
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.ranges == [None]


def test_an_interrupted_run_keeps_its_part(server: Server, tmp_path: Path) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    server.answers = [breaks_after(len(BODY) // 2), whole]
    with pytest.raises(KeyboardInterrupt):
        fetch(server.archive, tmp_path, sleep=interrupt)
    assert names(tmp_path) == ["a.zip.part"]
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.served <= len(BODY) + CHUNK


def test_starts_over_where_the_server_ignores_the_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 5000)
    server.answers = [ignores_range]
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.ranges == ["bytes=5000-"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (other_range, "asked for bytes from 5000 on, the server sent 'bytes 4999-65535/65536'"),
        (web_page, "the server offers 12 bytes instead of 65,536"),
        (without_length(BODY[:9000]), "the connection ended after 9,000 of 65,536 bytes"),
        (breaks_after(0), "the connection failed: ChunkedEncodingError"),
        (status(500), "HTTP 500 Internal Server Error"),
    ],
)
def test_a_wrong_answer_is_asked_again(
    answer: Callable[[Handler], None],
    reason: str,
    server: Server,
    tmp_path: Path,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY[:5000])
    server.answers = [answer, whole]
    assert_whole(fetch(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert reason in caplog.text
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(503, "7"), [7.0, 7.0]),
        (status(429, "7"), [7.0, 7.0]),
        (status(429), [2.0, 4.0]),
        (status(503, "0"), [2.0, 4.0]),
        (status(503, "soon"), [2.0, 4.0]),
        (status(503, "Wed, 21 Oct 2015 07:28:00 GMT"), [2.0, 4.0]),
    ],
)
def test_waits_as_long_as_the_server_asks(
    answer: Callable[[Handler], None], expected: list[float], server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.answers = [answer, answer, whole]
    assert_whole(fetch(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert waits == expected


def test_waits_until_the_date_the_server_names(server: Server, tmp_path: Path, waits: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    server.answers = [status(503, date), whole]
    assert_whole(fetch(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert 290 <= waits[0] <= 300


def test_does_not_wait_for_hours(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(429, "86400")]
    with pytest.raises(UserError, match=r"^The server asks to wait 86,400 seconds \(HTTP 429 .*" + BY_HAND):
        fetch(server.archive, tmp_path, sleep=waits.append)
    assert waits == []


@pytest.mark.parametrize(("code", "reason"), [(404, "Not Found"), (403, "Forbidden"), (416, "Requested Range Not Sat")])
def test_a_refusal_ends_it_at_once(code: int, reason: str, server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(code)]
    with pytest.raises(UserError, match=rf"^The download failed \(HTTP {code} {reason}.*\): .*{BY_HAND}\.$"):
        fetch(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == 1
    assert waits == []
    assert names(tmp_path) == []


def test_gives_up_on_a_server_that_stays_down(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(503)]
    with pytest.raises(UserError, match=r"failed 6 times in a row \(HTTP 503 Service Unavailable\): .*" + BY_HAND):
        fetch(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == obtain.ATTEMPTS
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_gives_up_where_nobody_answers(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = server.archive
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"the connection failed: ConnectionError\): .*" + BY_HAND):
        fetch(archive, tmp_path, sleep=waits.append)
    assert len(waits) == obtain.ATTEMPTS - 1


def test_an_address_that_makes_no_sense_is_not_asked_again(tmp_path: Path, waits: list[float]) -> None:
    archive = Archive("a.zip", "nowhere:/", 1, "", PAGE, "", "")
    with pytest.raises(UserError, match=r"^The download failed \(No connection adapters"):
        fetch(archive, tmp_path, sleep=waits.append)
    assert waits == []


def test_a_flaky_line_that_makes_progress_ends_eventually(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [breaks_after(3 * CHUNK)]
    assert_whole(fetch(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert len(server.seen) > 3 * obtain.ATTEMPTS
    assert set(waits) == {1.0}


def test_bytes_fetched_again_are_no_progress(server: Server, tmp_path: Path, waits: list[float]) -> None:
    def ignores_range_and_breaks(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": str(len(BODY))}, BODY[: 3 * CHUNK])

    server.answers = [ignores_range_and_breaks]
    with pytest.raises(UserError, match="failed 6 times in a row"):
        fetch(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == 1 + obtain.ATTEMPTS


def test_a_wrong_byte_is_found_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [wrong_byte, whole]
    with pytest.raises(
        UserError, match=r"its md5 is [0-9a-f]{32} instead of .* was deleted: try again, or .*" + BY_HAND
    ):
        fetch(server.archive, tmp_path)
    assert names(tmp_path) == []
    assert_whole(fetch(server.archive, tmp_path), tmp_path)


def test_more_than_the_archive_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers = [without_length(BODY + bytes(100 * CHUNK)), whole]
    with pytest.raises(UserError, match=r"sends more than the 65,536 bytes of the archive: .*" + BY_HAND):
        fetch(server.archive, tmp_path)
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").stat().st_size <= len(BODY) + CHUNK
    assert_whole(fetch(server.archive, tmp_path), tmp_path)


def test_a_whole_file_is_used_without_a_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(BODY)
    assert_whole(fetch(server.archive, tmp_path), tmp_path)
    assert server.seen == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [(BODY[:-1], "it has 65,535 bytes instead of 65,536"), (BODY[:-1] + b"\xff", "its md5 is [0-9a-f]{32} instead of")],
)
def test_another_file_of_that_name_is_neither_used_nor_replaced(
    content: bytes, fault: str, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(
        UserError, match=rf"a\.zip is not the archive \({fault}.*delete it and fetch again, or .*{BY_HAND}"
    ):
        fetch(server.archive, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == content
    assert server.seen == []


@pytest.mark.parametrize(("have", "enough"), [(0, False), (5000, True)])
def test_the_disk_must_have_room_for_what_is_missing(
    have: int, enough: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(BODY) + obtain.SPARE - 5000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (tmp_path / "a.zip.part").write_bytes(BODY[:have])
    if enough:
        assert_whole(fetch(server.archive, tmp_path), tmp_path)
        return
    with pytest.raises(UserError, match=rf"needs 67,174,400 free bytes and has {free:,}: free some, or .*{BY_HAND}"):
        fetch(server.archive, tmp_path)
    assert server.seen == []


def test_a_failing_disk_is_the_users_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").mkdir()
    with pytest.raises(
        UserError, match=rf"a\.zip can't be read or written \(Is a directory\); mend that, or .*{BY_HAND}"
    ):
        fetch(server.archive, tmp_path)


def test_two_at_once_download_once(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        go_on.wait(10)
        whole(handler)

    server.answers = [slow, whole]
    first = threading.Thread(target=fetch, args=(server.archive, tmp_path))
    second = threading.Thread(target=fetch, args=(server.archive, tmp_path))
    first.start()
    assert begun.wait(10)
    second.start()
    while "another process is at work on it" not in caplog.text:
        second.join(0.002)
        assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert_whole(tmp_path / "a.zip", tmp_path)
    assert len(server.seen) == 1


# --- progress ---


def test_without_a_terminal_progress_is_ten_log_lines(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hirise_imb")
    fetch(server.archive, tmp_path)
    shown = [record.getMessage() for record in caplog.records if record.name == "hirise_imb"]
    assert [line.split(" (")[0] for line in shown] == [f"a.zip: {tenths}0 %" for tenths in range(1, 11)]
    assert shown[-1] == "a.zip: 100 % (0.1 of 0.1 MB)"


def test_on_a_terminal_progress_is_a_bar(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    fetch(server.archive, tmp_path)
    assert re.search(r"a\.zip.*65\.5/65\.5 kB.*/s", terminal.getvalue())


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
        unpack(zip_path, place / "data")
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
    assert unpack(zip_path, folder) == folder
    assert below(folder) == CONTENT
    assert names(folder.parent) == ["new"]


def test_unpacking_again_does_nothing(zip_path: Path, tmp_path: Path) -> None:
    folder = unpack(zip_path, tmp_path / "data")
    stamps = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    zip_path.unlink()
    assert unpack(zip_path, folder) == folder
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == stamps


def test_a_folder_that_is_not_complete_is_neither_used_nor_replaced(zip_path: Path, tmp_path: Path) -> None:
    folder = unpack(zip_path, tmp_path / "data")
    (folder / SPLIT).unlink()
    with pytest.raises(UserError, match=rf"data is there but lacks {SPLIT}: delete this folder and try again\.$"):
        unpack(zip_path, folder)
    assert not (folder / SPLIT).exists()


def test_what_a_killed_run_left_is_replaced(zip_path: Path, tmp_path: Path) -> None:
    (tmp_path / ".data.part" / "map-proj-v3_2").mkdir(parents=True)
    (tmp_path / ".data.part" / "half.jpg").touch()
    assert below(unpack(zip_path, tmp_path / "data")) == CONTENT
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
    if unpacking.is_safe(name):
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
    declare_size(zip_path, ROOT + IMAGE, unpacking.MAX_MEMBER)
    assert_refused(zip_path, "is damaged")  # the limit itself is allowed: found out while unpacking
    declare_size(zip_path, ROOT + IMAGE, unpacking.MAX_MEMBER + 1)
    assert_refused(
        zip_path, r"0030\.jpg' unpacks to 67,108,865 bytes, over the limit of 67,108,864\): use the official"
    )


def test_an_absurd_size_of_everything_is_refused(tmp_path: Path) -> None:
    images = {f"map-proj-v3_2/{number:03}.jpg": b"x" for number in range(320)}
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | images)
    for name in images:
        declare_size(zip_path, ROOT + name, unpacking.MAX_MEMBER)
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
    assert below(unpack(zip_path, zip_path.parent / "data")) == CONTENT


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_must_have_the_size_it_declares(difference: int, zip_path: Path) -> None:
    declare_size(zip_path, ROOT + IMAGE, len(CONTENT[IMAGE]) + difference)
    assert_refused(zip_path, r"official\.zip is damaged or no zip file \(.*0030\.jpg.*\): copy or download it again\.$")


def test_a_bomb_that_declares_little_takes_little_memory(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", CONTENT | {IMAGE: bytes(48 << 20)})
    declare_size(zip_path, ROOT + IMAGE, 100)
    tracemalloc.start()
    try:
        assert_refused(zip_path, "is damaged or no zip file")
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
    assert_refused(zip_path, r"0030\.jpg' is there twice\): use the official archive\.$")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_zip_is_refused(keep: float, zip_path: Path) -> None:
    data = zip_path.read_bytes()
    zip_path.write_bytes(data[: int(keep * len(data))])
    assert_refused(
        zip_path, r"official\.zip is damaged or no zip file \(File is not a zip file\): copy or download it again\.$"
    )


def test_a_wrong_byte_in_a_file_is_found(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    zip_path.write_bytes(zip_path.read_bytes().replace(b" another ", b" changed ", 1))
    assert_refused(zip_path, r"damaged or no zip file \(Bad CRC-32 for file '.*-r90\.jpg'\): copy or download it again")


def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    short = {name: data[:20] for name, data in CONTENT.items()}
    good = make_zip(tmp_path / "a.zip", short, root="").read_bytes()
    refused = 0
    for position in range(0, len(good), 7):  # hits every kind of field; all positions would take seconds
        data = bytearray(good)
        data[position] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(data)
        try:
            assert set(short) >= set(below(unpack(tmp_path / "a.zip", tmp_path / "data")))
        except UserError:
            refused += 1
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    assert 0 < refused < len(good) // 7


@pytest.mark.parametrize("gone", sorted(set(CONTENT) - {name for name in CONTENT if name.endswith(".jpg")}))
def test_a_missing_official_file_is_named(gone: str, tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", {name: data for name, data in CONTENT.items() if name != gone})
    assert_refused(zip_path, rf"a\.zip lacks {gone}: use an archive in the layout of HiRISE v3\.2\.$")


def test_every_missing_official_file_is_named(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", {IMAGE: b""})
    assert_refused(zip_path, r"lacks labels-map-proj_v3_2\.txt, labels-.*_test\.txt, landmarks_.*_classmap\.csv: use")


def test_two_data_sets_in_one_zip_are_refused(tmp_path: Path) -> None:
    zip_path = make_zip(tmp_path / "a.zip", extra={f"old/{SPLIT}": b""})
    assert_refused(zip_path, rf"holds several data sets \({ROOT}{SPLIT}, old/{SPLIT}\): keep one")


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
    assert_refused(zip_path, rf"can't be unpacked into .*data \({os.strerror(number)}\): mend that and try again\.$")


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
    assert find_data_folder(tmp_path) == tmp_path / depth


@pytest.mark.parametrize("place", ["a/b/c", "../beside"])
def test_says_what_was_looked_for(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make_folder_source(folder / place)
    with pytest.raises(
        UserError, match=rf"folder holds no {SPLIT}, at most two levels down: name a folder in the official"
    ):
        find_data_folder(folder)


def test_two_data_folders_are_one_too_many(tmp_path: Path) -> None:
    make_folder_source(tmp_path / "a")
    make_folder_source(tmp_path / "b")
    with pytest.raises(UserError, match=r"holds several data sets \(.*/a, .*/b\): name one of them\.$"):
        find_data_folder(tmp_path)


def test_a_folder_is_used_where_it_is(tmp_path: Path) -> None:
    source = make_folder_source(tmp_path / "source" / ROOT)
    assert import_data(source.parent, tmp_path / "cache") == source
    assert not (tmp_path / "cache").exists()
    assert below(source) == CONTENT


def test_a_zip_is_unpacked_once_by_its_content(zip_path: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(zip_path.read_bytes()).hexdigest()
    folder = import_data(zip_path, tmp_path / "cache")
    assert folder == tmp_path / "cache" / f"official-{digest[:12]}"
    assert below(folder) == CONTENT
    stamp = folder.stat().st_mtime_ns
    assert import_data(zip_path, tmp_path / "cache") == folder
    assert folder.stat().st_mtime_ns == stamp
    make_zip(zip_path, CONTENT | {IMAGE: b"new"})
    assert below(import_data(zip_path, tmp_path / "cache"))[IMAGE] == b"new"


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.zip does not exist: name the zip of HiRISE v3\.2 or the folder"):
        import_data(tmp_path / "none.zip", tmp_path / "cache")


@pytest.mark.real
@pytest.mark.skipif("HIRISE_SAMPLE" not in os.environ, reason="HIRISE_SAMPLE names no real landmarks")
def test_the_real_sample(tmp_path: Path) -> None:
    folder = import_data(Path(os.environ["HIRISE_SAMPLE"]), tmp_path)
    images = names(folder / unpacking.IMAGE_FOLDER)
    labels = (folder / unpacking.LABEL_FILE).read_text().splitlines()
    assert images == sorted(line.split()[0] for line in labels)
    assert names(folder) == sorted([*unpacking.OFFICIAL_FILES, unpacking.IMAGE_FOLDER])
