"""The command that opens the Optuna dashboard."""

from __future__ import annotations

import argparse
from pathlib import Path

from hirise_imb.cli.parsing import Subparsers, add_command
from hirise_imb.utils.errors import UserError


def add_commands(subparsers: Subparsers) -> None:
    """Adds the command of this module."""
    summary = "open the Optuna dashboard of all studies of a folder or a database in a browser"
    parser = add_command(subparsers, "dashboard", _dashboard, summary)
    parser.add_argument("--out", type=Path, default=Path(), help="where the studies were run (default: here)")
    parser.add_argument(
        "--storage", metavar="URL", help="address of their database (default: the file in OUT/studies/)"
    )
    parser.add_argument("--port", type=int, default=8080, help="port on this machine (default: 8080)")


def _dashboard(options: argparse.Namespace) -> int:
    if not 0 < options.port < 65536:
        raise UserError(f"--port is {options.port}: use a number from 1 to 65535.")
    from hirise_imb.search.dashboard import artifacts_folder, serve_dashboard
    from hirise_imb.search.database import database_path

    place = database_path(options.out) if options.storage is None else options.storage
    serve_dashboard(place, artifacts_folder(options.out), options.port)
    return 0
