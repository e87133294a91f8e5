"""Requests of other sites to the dashboard, and text that would be markup in its notes: nothing of it is obeyed."""

from __future__ import annotations

import io
import socket
import struct
import threading
from pathlib import Path
from typing import Any
from unittest import mock
from wsgiref.simple_server import make_server

import numpy as np
import optuna
import pandas as pd
from markdown_it import MarkdownIt
from optuna_dashboard import get_note, wsgi

from hirise_imb.data.dataset import ClassSet
from hirise_imb.recipe import Recipe
from hirise_imb.search import connect
from hirise_imb.search.dashboard import write_study_note
from hirise_imb.search.dashboard.protection import protect
from hirise_imb.search.dashboard.server import _QuietHandler, _ThreadingServer
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Search
from hirise_imb.search.trial_store import open_trial_store
from hirise_imb.strategies import STRATEGIES, RecipeContext
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed
from torture.attacks import Area, Attempt, Outcome, attack
from torture.security import MARKUP


def make_study(folder: Path, name: str) -> str:
    """Creates a database with one study, and returns its address."""
    address = f"sqlite:///{folder / 'studies.sqlite3'}"
    optuna.create_study(storage=address, study_name=name, direction="maximize")
    return address


@attack(Area.SECURITY, "Requests to the dashboard from pages of other sites, and by DNS rebinding", tries=60)
def other_sites(attempt: Attempt) -> Outcome:
    address, rng = make_study(attempt.folder, "demo/plain"), attempt.random
    storage = connect(address)
    application = protect(wsgi(storage))
    own = ("127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST:9", "127.0.0.1")
    foreign = (
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "127.1",
        "0.0.0.0:8080",
        "localhost:8080.evil.example",
        "127.0.0.1:8080/",
        "localhost.evil.example:8080",
    )
    try:
        for _ in range(20):
            host = rng.choice(own + foreign)
            origin = rng.choice(
                (None, "null", f"http://{host}", f"https://{rng.choice(foreign)}", "http://localhost:3000")
            )
            site = rng.choice((None, "same-origin", "same-site", "cross-site", "none"))
            method, path = rng.choice(
                (("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename"), ("PUT", "/api/studies/1/note"))
            )
            if rng.random() < 0.3:
                method, path = "GET", "/api/studies"
            environ: dict[str, Any] = {
                **{"REQUEST_METHOD": method, "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "8080"},
                **{"HTTP_HOST": host, "wsgi.input": io.BytesIO(b"{}"), "wsgi.errors": io.StringIO()},
                **{"wsgi.url_scheme": "http", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "2"},
            }
            environ |= {"HTTP_ORIGIN": origin} if origin is not None else {}
            environ |= {"HTTP_SEC_FETCH_SITE": site} if site is not None else {}
            status: list[str] = []
            headers: dict[str, str] = {}

            def start(line: str, fields: list[tuple[str, str]], *_: object) -> None:
                status.append(line)  # noqa: B023
                headers.update(fields)  # noqa: B023

            body = b"".join(application(environ, start))  # type: ignore[arg-type]
            ours = host in own and (
                method == "GET" or (origin in (None, f"http://{host}") and site in (None, "same-origin", "none"))
            )
            assert (status[0][:3] != "403") == ours, (host, origin, site, method, status[0], body)
            assert "Access-Control-Allow-Origin" not in headers
            assert headers["X-Frame-Options"] == "SAMEORIGIN"
            if ours and method == "DELETE":
                assert status[0].startswith("204")
                optuna.create_study(storage=storage, study_name="demo/plain", direction="maximize")
                break
            assert [study.study_name for study in storage.get_all_studies()] == ["demo/plain"]
    finally:
        storage.engine.dispose()
    return Outcome.REFUSED


@attack(Area.SECURITY, "Requests to the dashboard that are no HTTP, too long, cut off, or name files outside", tries=6)
def garbage_requests(attempt: Attempt) -> Outcome:
    rng, errors = attempt.random, io.StringIO()
    storage = connect(make_study(attempt.folder, "demo/plain"))
    server = make_server("127.0.0.1", 0, protect(wsgi(storage)), _ThreadingServer, _QuietHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    paths = (
        *(b"/", b"/api/studies/1", b"/api/studies/99999999999999999999", b"/%ff%00", b"/csv/1", b"/" + b"a" * 70_000),
        *(b"/artifacts/1/1/..%2f..%2fx", b"/static/../../../../etc/passwd", b"/static/%2e%2e/%2e%2e/_app.py"),
        *(b"/static/bundle.js",) * 4,
    )
    try:
        with mock.patch("sys.stderr", errors):
            for _ in range(30):
                method = rng.choice((b"GET", b"POST", b"DELETE", b"PUT", b"\x16\x03\x01", b"FOO", b""))
                length = rng.choice(
                    (b"", b"Content-Length: -1\r\n", b"Content-Length: abc\r\n", b"Content-Length: 999999999\r\n")
                )
                # optuna-dashboard fails on static files where no encoding is named.
                encoding = rng.choice((b"", b"Accept-Encoding: gzip\r\n"))
                head = b"Host: localhost\r\nContent-Type: application/json\r\n" + encoding + length
                request = method + b" " + rng.choice(paths) + b" HTTP/1.0\r\n" + head + b"\r\n{" + rng.randbytes(20)
                if rng.random() < 0.3:
                    request = rng.randbytes(rng.randrange(200))
                with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
                    client.sendall(request[: rng.choice((len(request), rng.randrange(1 + len(request))))])
                    if rng.random() < 0.3:  # closes with a reset
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        continue
                    client.shutdown(socket.SHUT_WR)
                    answer = b""
                    while part := client.recv(1 << 16):
                        answer += part
                    assert b"root:" not in answer
                    assert b"Traceback" not in answer
        # The deletion that the requests may ask for is the user's own: no page of another site sends such ones.
        assert len(storage.get_all_studies()) <= 1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        storage.engine.dispose()
    assert "Traceback" not in errors.getvalue(), errors.getvalue()
    return Outcome.HARMLESS


@attack(Area.SECURITY, "Markup in class names and reasons of failures, in the notes of the dashboard", tries=60)
def hostile_notes(attempt: Attempt) -> Outcome:
    rng, storage = attempt.random, connect(make_study(attempt.folder, "other"))
    classes = ClassSet((*rng.sample(MARKUP, 2), "plain"))

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        if rng.random() < 0.5:
            raise FitFailed(rng.choice(MARKUP))
        return CrossValidation(
            seeds=(0,),
            epochs=(3,),
            capped=False,
            history=pd.DataFrame(),
            log_probabilities=np.zeros((1, 0, 3), np.float32),
            temperatures=(1.0,),
            confusions=np.eye(3, dtype=np.int64)[None],
            score=0.5,
            notes=(rng.choice(MARKUP),),
            seconds=1.0,
        )

    try:
        trial_store = open_trial_store(storage, "demo/plain", {"seed": 0})
        search = Search(trial_store, STRATEGIES["plain"], RecipeContext((), {}), 4, 0, classes)
        while search.train_next_trial(Leases(storage.engine), fit, lambda done: None):
            pass
        write_study_note(search)
        # The dashboard renders tables and HTML that is in the note.
        tokens = (
            MarkdownIt("commonmark", {"html": True})
            .enable(["table", "strikethrough"])
            .parse(str(get_note(trial_store.study)))
        )
    finally:
        storage.engine.dispose()
    inline = [child for token in tokens for child in token.children or ()]
    for token in (*tokens, *inline):
        assert token.type not in ("html_block", "html_inline", "image", "code_inline", "s_open", "strong_open"), token
        if token.type == "link_open":
            assert str(token.attrs["href"]).startswith("/dashboard/"), token
    return Outcome.HARMLESS
