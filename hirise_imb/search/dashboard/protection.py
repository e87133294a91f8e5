"""Keeps web pages that the user has open in the same browser from reading or changing studies through the dashboard.

The dashboard asks for no password. That only this machine can connect to it does not suffice: the user's browser runs
pages of any site on this machine. Such a page may send requests to the dashboard's address, and a site that lets its
own name point to 127.0.0.1 (DNS rebinding) may read the answers, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LOOPBACK_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_READING_METHODS: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = (
    # No other site may show the dashboard in a frame, where it could make the user click on its buttons.
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
)
_ARTIFACT_HEADER: Final = ("Content-Security-Policy", "sandbox")
"""Keeps scripts in an artifact, which is a file that may come from anywhere, from running as part of the dashboard."""


def protect(application: WSGIApplication) -> WSGIApplication:
    """Returns an application that refuses requests of other sites' pages, and passes on all others.

    A request must address this machine by a loopback name, and one that may change something must not come from
    another origin. Ports are compared between origin and address alone: a tunnel may lead another port here.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reason = _reason_to_refuse(environ)
        if reason is not None:
            status, kind = HTTPStatus.FORBIDDEN, ("Content-Type", "text/plain; charset=utf-8")
            start_response(f"{status.value} {status.phrase}", [kind, *_HEADERS])
            return [f"{reason}\n".encode()]
        is_artifact = str(environ.get("PATH_INFO", "")).startswith("/artifacts/")
        added = [*_HEADERS, _ARTIFACT_HEADER] if is_artifact else [*_HEADERS]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:  # noqa: ANN401
            # optuna-dashboard lets pages of all sites read artifacts.
            kept = [header for header in headers if header[0].lower() != "access-control-allow-origin"]
            return start_response(status, [*kept, *added], *rest)

        return application(environ, start)

    return answer


def _reason_to_refuse(environ: WSGIEnvironment) -> str | None:
    """Returns the sentence that refuses a request, or None for one that is answered."""
    host = str(environ.get("HTTP_HOST", ""))
    if not _LOOPBACK_HOST.fullmatch(host):
        return "The dashboard answers only at 127.0.0.1 and localhost: open it at the address that its command printed."
    if environ.get("REQUEST_METHOD") in _READING_METHODS:
        return None
    origin = environ.get("HTTP_ORIGIN")
    # Browsers name the origin of every request that may change something; only other programs leave it out.
    same_origin = origin is None or str(origin).partition("://")[2] == host
    if not same_origin or environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return "The dashboard takes changes only from its own pages: make them at the address that its command printed."
    return None
