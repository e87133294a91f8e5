"""The download of the archive, from a real local server."""

import hashlib
import io
import logging
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import names

from hirise_imb import __version__
from hirise_imb.data import download
from hirise_imb.data.dataset import Archive
from hirise_imb.data.download import download_archive
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.errors import UserError

CHUNK = 1 << 10
BODY = bytes(i * i % 251 for i in range(64 * CHUNK))
PAGE = "https://example.org/records/1"
BY_HAND = rf"by hand from {PAGE} \(http://127\.0\.0\.1:\d+/a\.zip\) and run `hirise-imb data import FILE`"

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
        return Archive("a.zip", address, len(BODY), hashlib.md5(BODY).hexdigest(), PAGE)

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
        self.server.served += len(body)  # before the client has it all, and the test looks
        self.wfile.write(body)


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
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


def assert_whole(path: Path, folder: Path) -> None:
    assert path == folder / "a.zip"
    assert path.read_bytes() == BODY
    assert names(folder) == ["a.zip"]


# --- download ---


def test_the_facts_of_the_archive() -> None:
    archive = HIRISE.archive
    assert archive is not None
    facts = (archive.name, archive.size, archive.md5)
    assert facts == ("hirise-map-proj-v3_2.zip", 911_235_740, "236d9c627db1a5970e77a01a8c8a035a")
    assert archive.address == f"{archive.page}/files/{archive.name}?download=1"
    assert "4002935" in archive.page


def test_downloads_into_a_new_folder_naming_the_project(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    assert_whole(download_archive(server.archive, folder), folder)
    assert server.ranges == [None]
    assert server.seen[0]["User-Agent"] == f"hirise_imb/{__version__} (+https://doi.org/10.5281/zenodo.4002935)"


def test_goes_on_where_the_connection_broke(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [breaks_after(len(BODY) // 2), whole]
    assert_whole(download_archive(server.archive, tmp_path, sleep=waits.append), tmp_path)
    first, second = server.ranges
    assert first is None
    start = int(re.fullmatch(r"bytes=(\d+)-", second or "")[1])  # type: ignore[index]
    assert len(BODY) // 2 - CHUNK <= start <= len(BODY) // 2
    assert len(BODY) <= server.served <= len(BODY) + CHUNK
    assert waits == [1.0]


def test_goes_on_with_the_part_of_a_killed_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY[:5000])
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
    assert server.ranges == ["bytes=5000-"]
    assert server.served == len(BODY) - 5000


def test_a_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY)
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
    assert server.seen == []


def test_a_part_that_is_too_long_is_discarded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(BODY + b"!")
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
    assert server.ranges == [None]


def test_an_interrupted_run_keeps_its_part(server: Server, tmp_path: Path) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    server.answers = [breaks_after(len(BODY) // 2), whole]
    with pytest.raises(KeyboardInterrupt):
        download_archive(server.archive, tmp_path, sleep=interrupt)
    assert names(tmp_path) == ["a.zip.part"]
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
    assert server.served <= len(BODY) + CHUNK


def test_starts_over_where_the_server_ignores_the_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 5000)
    server.answers = [ignores_range]
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
    assert server.ranges == ["bytes=5000-"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (other_range, "the server sent 'bytes 4999-65535/65536' instead of the bytes from 5000 on"),
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
    assert_whole(download_archive(server.archive, tmp_path, sleep=waits.append), tmp_path)
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
    assert_whole(download_archive(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert waits == expected


def test_waits_until_the_date_the_server_names(server: Server, tmp_path: Path, waits: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    server.answers = [status(503, date), whole]
    assert_whole(download_archive(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert 290 <= waits[0] <= 300


def test_does_not_wait_for_hours(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(429, "86400")]
    with pytest.raises(UserError, match=r"^The server asks to wait 86,400 seconds \(HTTP 429 .*" + BY_HAND):
        download_archive(server.archive, tmp_path, sleep=waits.append)
    assert waits == []


@pytest.mark.parametrize(("code", "reason"), [(404, "Not Found"), (403, "Forbidden"), (416, "Requested Range Not Sat")])
def test_a_refusal_ends_it_at_once(code: int, reason: str, server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(code)]
    with pytest.raises(UserError, match=rf"^The download failed \(HTTP {code} {reason}.*\): .*{BY_HAND}\.$"):
        download_archive(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == 1
    assert waits == []
    assert names(tmp_path) == []


def test_gives_up_on_a_server_that_stays_down(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [status(503)]
    with pytest.raises(UserError, match=r"failed 6 times in a row \(HTTP 503 Service Unavailable\): .*" + BY_HAND):
        download_archive(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == download.ATTEMPTS
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_gives_up_where_nobody_answers(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = server.archive
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"the connection failed: ConnectionError\): .*" + BY_HAND):
        download_archive(archive, tmp_path, sleep=waits.append)
    assert len(waits) == download.ATTEMPTS - 1


def test_an_address_that_makes_no_sense_is_not_asked_again(tmp_path: Path, waits: list[float]) -> None:
    archive = Archive("a.zip", "nowhere:/", 1, "", PAGE)
    with pytest.raises(UserError, match=r"^The download failed \(No connection adapters"):
        download_archive(archive, tmp_path, sleep=waits.append)
    assert waits == []


def test_a_flaky_line_that_makes_progress_ends_eventually(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.answers = [breaks_after(3 * CHUNK)]
    assert_whole(download_archive(server.archive, tmp_path, sleep=waits.append), tmp_path)
    assert len(server.seen) > 3 * download.ATTEMPTS
    assert set(waits) == {1.0}


def test_bytes_fetched_again_are_no_progress(server: Server, tmp_path: Path, waits: list[float]) -> None:
    def ignores_range_and_breaks(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": str(len(BODY))}, BODY[: 3 * CHUNK])

    server.answers = [ignores_range_and_breaks]
    with pytest.raises(UserError, match="failed 6 times in a row"):
        download_archive(server.archive, tmp_path, sleep=waits.append)
    assert len(server.seen) == 1 + download.ATTEMPTS


def test_a_wrong_byte_is_found_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [wrong_byte, whole]
    with pytest.raises(
        UserError, match=r"its md5 is [0-9a-f]{32} instead of .* was deleted: try again, or .*" + BY_HAND
    ):
        download_archive(server.archive, tmp_path)
    assert names(tmp_path) == []
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)


def test_more_than_the_archive_is_refused(server: Server, tmp_path: Path) -> None:
    server.answers = [without_length(BODY + bytes(100 * CHUNK)), whole]
    with pytest.raises(UserError, match=r"sends more than the 65,536 bytes of the archive: .*" + BY_HAND):
        download_archive(server.archive, tmp_path)
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").stat().st_size <= len(BODY) + CHUNK
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)


def test_a_whole_file_is_used_without_a_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(BODY)
    assert_whole(download_archive(server.archive, tmp_path), tmp_path)
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
        download_archive(server.archive, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == content
    assert server.seen == []


@pytest.mark.parametrize(("have", "enough"), [(0, False), (5000, True)])
def test_the_disk_must_have_room_for_what_is_missing(
    have: int, enough: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(BODY) + download.SPARE - 5000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (tmp_path / "a.zip.part").write_bytes(BODY[:have])
    if enough:
        assert_whole(download_archive(server.archive, tmp_path), tmp_path)
        return
    with pytest.raises(UserError, match=rf"needs 67,174,400 free bytes and has {free:,}: free some, or .*{BY_HAND}"):
        download_archive(server.archive, tmp_path)
    assert server.seen == []


def test_a_failing_disk_is_the_users_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").mkdir()
    with pytest.raises(
        UserError, match=rf"a\.zip can't be read or written \(Is a directory\); fix that, or .*{BY_HAND}"
    ):
        download_archive(server.archive, tmp_path)


def test_two_at_once_download_once(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        go_on.wait(10)
        whole(handler)

    server.answers = [slow, whole]
    first = threading.Thread(target=download_archive, args=(server.archive, tmp_path))
    second = threading.Thread(target=download_archive, args=(server.archive, tmp_path))
    first.start()
    assert begun.wait(10)
    second.start()
    while "another process that is working on it" not in caplog.text:
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
    download_archive(server.archive, tmp_path)
    shown = [record.getMessage() for record in caplog.records if record.name == "hirise_imb"]
    assert len(shown) == 10
    assert re.fullmatch(r"a\.zip: 0\.1 of 0\.1 MB, \d+\.\d MB/s", shown[-1])


def test_on_a_terminal_progress_is_a_bar(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hirise_imb")  # as the command line does
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    download_archive(server.archive, tmp_path)
    assert re.search(r"a\.zip.*0\.1 of 0\.1 MB, \d+\.\d MB/s", terminal.getvalue())
