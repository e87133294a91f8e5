"""Writes `hirise_imb/reporting/summary.schema.json`, which is needed after a change to the records or the metrics.

python tools/write_summary_schema.py
"""

from __future__ import annotations

import json
from importlib.resources import as_file, files

from hirise_imb.reporting.summary.schema import generate_schema
from hirise_imb.utils.files import write_text


def main() -> None:
    """Generates the schema from the typed records and writes it to the package."""
    with as_file(files("hirise_imb.reporting") / "summary.schema.json") as path:
        write_text(path, json.dumps(generate_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
