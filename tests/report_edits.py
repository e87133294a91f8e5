"""Edits of a report by someone who also corrects its digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handmade import summary_of


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Replaces the summary of a report."""
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replaces a file of a report, and its digest in the summary."""
    (folder / name).write_bytes(content)
    summary = summary_of(folder)
    summary["files"][name] = hashlib.sha256(content).hexdigest()
    write_summary(folder, summary)
