"""Shared by the commands that write a report: where its page is, and opening it in a browser."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from hirise_imb.utils.errors import UserError


def add_open_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that opens the page."""
    parser.add_argument("--open", action="store_true", help="open the page in a browser after it is written")


def open_page(page: Path) -> None:
    """Opens a page in a browser.

    Raises:
        UserError: no browser can be started.
    """
    if not webbrowser.open(page.resolve().as_uri()):
        raise UserError(f"The report is written, but no browser could be started here: open {page} yourself.")
