"""A server that breaks off, lies about lengths and ranges, redirects in circles, or asks to wait for years."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from unittest import mock

from hirise_imb.backbones.keras_applications import NETWORKS, make_card
from hirise_imb.data import download
from hirise_imb.data.dataset import Archive
from hirise_imb.utils.errors import UserError
from torture.attacks import Area, Attempt, Outcome, attack
from torture.damage import damage

PAGE = "https://example.org/records/1"


class _Server(http.server.ThreadingHTTPServer):
    """Answers a number of requests in a random wrong way, and all others rightly."""

    daemon_threads = True

    def __init__(self, rng: random.Random, content: bytes, wrong: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rng, self.content, self.wrong = rng, content, wrong
        self.requests = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.zip"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if self.server.requests > self.server.wrong:
            self._send(206 if start else 200, first, self.server.content[first:])
        else:
            self._lie(first)

    def _lie(self, first: int) -> None:
        rng, rest = self.server.rng, self.server.content[first:]
        match rng.randrange(9):
            case 0:  # breaks off
                self._send(206 if first else 200, first, rest[: rng.randrange(len(rest) + 1)])
            case 1:  # another length
                length = rng.choice(
                    ["0", "-1", "12", "9" * 30, "9" * 5000, "many", "\u0663", f"{len(rest)}, {len(rest)}"]
                )
                self._send(206 if first else 200, first, rest, length=length)
            case 2:  # another range
                content_range = rng.choice(["", "bytes 0-5/6", f"bytes {first + 1}-9/10", "bytes */*", "\u00b2"])
                self._send(206, first, rest, content_range=content_range)
            case 3:  # another file
                self._send(206 if first else 200, first, damage(rng, rest))
            case 4:  # more than there is
                self._send(206 if first else 200, first, rest + bytes(rng.randrange(1, 5000)), length="")
            case 5:  # busy, perhaps for years
                waits = ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "-1", "nan"]
                self.send_response(rng.choice([429, 500, 503]))
                self.send_header("Retry-After", rng.choice([*waits, "1", "Mon, 01 Jan 0001 00:00:00 +2359"]))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case 6:  # somewhere else
                places = ["/archive.zip", "file:///etc/passwd", "http://[", "http://.", "//", "http://127.0.0.1:1/"]
                self.send_response(rng.choice([301, 302, 307]))
                self.send_header("Location", rng.choice([*places, "http://" + "a" * 300, "\x7f"]))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case 7:  # not HTTP
                self.wfile.write(rng.randbytes(rng.randrange(200)))
            case 8:  # refuses
                self._send(rng.choice([204, 304, 403, 404, 416]), first, b"")

    def _send(
        self, code: int, first: int, body: bytes, *, length: str | None = None, content_range: str | None = None
    ) -> None:
        size = len(self.server.content)
        self.send_response(code)
        if length != "":
            header = str(size - first) if length is None else length
            self.send_header("Content-Length", header.encode().decode("latin-1"))
        if code == 206:
            header = f"bytes {first}-{size - 1}/{size}" if content_range is None else content_range
            self.send_header("Content-Range", header)
        self.end_headers()
        with suppress(OSError):  # the client has had enough
            self.wfile.write(body)
        self.close_connection = True


@contextmanager
def _serve(attempt: Attempt, wrong: int) -> Iterator[_Server]:
    content = attempt.random.randbytes(20_000)
    with _Server(attempt.random, content, wrong) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@attack(Area.DISK, "A download from a server that lies, breaks off or asks to wait for years", tries=200, quick=3)
def download_from_hostile_server(attempt: Attempt) -> Outcome:
    waits: list[float] = []
    with _serve(attempt, attempt.random.randrange(1, 8)) as server:
        md5 = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
        archive = Archive("archive.zip", server.address, len(server.content), md5, PAGE)
        outcome = Outcome.REPAIRED
        while True:
            refusal = ""
            try:
                path = download.download_archive(archive, attempt.folder, sleep=waits.append)
            except UserError as error:
                refusal = str(error)
            if not refusal:
                break
            assert PAGE in refusal, refusal
            assert "\n" not in refusal, refusal
            assert not (attempt.folder / archive.name).exists()
            outcome = Outcome.REFUSED  # and then the same command again
        assert path.read_bytes() == server.content
    assert all(0 < wait <= download.LONGEST_WAIT for wait in waits), waits
    return outcome


@attack(Area.DISK, "Downloaded weights are damaged in Keras' cache", tries=60, quick=2)
def damage_downloaded_weights(attempt: Attempt) -> Outcome:
    import keras

    is_reachable = attempt.random.random() < 0.5
    with _serve(attempt, 0) as server:
        md5 = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
        address = server.address if is_reachable else "http://127.0.0.1:1/weights.h5"
        facts = replace(NETWORKS["MobileNetV2"], address=address, digest=md5)
        cached = attempt.folder / "models" / facts.file_name
        cached.parent.mkdir()
        cached.write_bytes(changed := damage(attempt.random, server.content))
        get_file = functools.partial(keras.utils.get_file, cache_dir=str(attempt.folder))
        with (
            redirect_stdout(io.StringIO()),  # Keras' progress bar
            mock.patch.object(keras.utils, "get_file", get_file),
            # The network is built once the file is complete.
            mock.patch.object(keras.applications, facts.name, side_effect=_Complete),
        ):
            try:
                make_card(facts).load("imagenet", (96, 96, 1))
            except _Complete:
                assert cached.read_bytes() == server.content
                return Outcome.CORRECT if changed == server.content else Outcome.REPAIRED
            except UserError as error:
                refusal = str(error)
    assert "can't be downloaded" in refusal, refusal
    assert not is_reachable
    assert changed != server.content
    return Outcome.REFUSED


class _Complete(Exception):
    """The weights file was found complete."""
