"""The web server of the dashboard."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore

from hirise_imb.search.dashboard.protection import protect
from hirise_imb.search.database import display_address, open_database
from hirise_imb.search.digests import warn_of_damaged_trials
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.interruption import end_at_interruption
from hirise_imb.utils.progress import say


def serve_dashboard(database: Path | str, artifacts: Path, port: int) -> None:
    """Serves the dashboard of all studies in a database, to this machine only, until it is interrupted.

    Args:
        database: file or address of the database.
        artifacts: folder of the trials' pictures; those that another machine has written elsewhere can't be shown.
        port: port on 127.0.0.1.

    Raises:
        UserError: there is no such database, or the port can't be used.
    """
    from optuna_dashboard import wsgi

    name = display_address(database)
    file = database if isinstance(database, Path) else _sqlite_file(name)
    # Optuna would create the missing file, and a user who has mistyped the folder would see an empty dashboard.
    if file is not None and not file.exists():
        raise UserError(f"There is no database {file}: run a study first, or give its place with --out or --storage.")
    # It would print tracebacks; the handler says what could not be answered.
    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)
    with open_database(database) as storage:
        warn_of_damaged_trials(storage)
        application = wsgi(storage, artifact_store=FileSystemArtifactStore(ensure_folder(artifacts)))
        try:
            # The dashboard asks for no password and can delete studies, so it accepts connections from this machine
            # only, and of these only the ones that no page of another site has made.
            server = make_server("127.0.0.1", port, protect(application), _ThreadingServer, _QuietHandler)
        except OSError as error:
            raise UserError(f"Port {port} can't be used ({error.strerror}): choose another with --port.") from error
        say(f"The dashboard of {name} is at http://127.0.0.1:{port}/ until you press Ctrl-C.")
        with server, end_at_interruption():
            server.serve_forever()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread: browsers open some in advance and leave them idle, which would block it."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Passes over connections that the browser has cut off."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    """Says in one line which requests the dashboard could not answer, and nothing on all others."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        if str(code).startswith("5"):
            say(f"The dashboard could not answer {ascii(self.requestline)[1:-1]}.")

    def get_stderr(self) -> io.StringIO:
        """Takes the tracebacks of optuna-dashboard, which mean nothing to its users."""
        return io.StringIO()


def _sqlite_file(address: str) -> Path | None:
    """Returns the file that an address names, None for the address of a server."""
    url = sqlalchemy.make_url(address)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
