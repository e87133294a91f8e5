"""Searches for content of text files that ends in another exception than UserError, guided by coverage.

    pip install atheris
    PYTHONPATH=tests python tools/fuzz_parsers.py PARSER [CORPUS] -max_total_time=120

The options after PARSER are those of libFuzzer. `--help` lists the parsers.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hirise_imb", "tomllib"]):
    from builders import valid_lines, write_data

    from hirise_imb import forensics
    from hirise_imb.config import load_definition
    from hirise_imb.data.annotations import build_manifest
    from hirise_imb.data.hirise import HIRISE
    from hirise_imb.data.manifest import read_manifest
    from hirise_imb.data.tables import read_class_names, read_table
    from hirise_imb.utils.errors import UserError

LAYOUT = HIRISE.layout


def _read_annotations(folder: Path) -> None:
    build_manifest(read_table(folder / "table.csv"))


def _read_names(folder: Path) -> None:
    read_class_names(folder / "mapping.json")


PARSERS: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "labels": (LAYOUT.label_file, lambda folder: read_manifest(folder, HIRISE)),
    "split": (LAYOUT.split_file, lambda folder: read_manifest(folder, HIRISE)),
    "classes": (LAYOUT.class_file, lambda folder: read_manifest(folder, HIRISE)),
    "annotations": ("table.csv", _read_annotations),
    "class-names": ("mapping.json", _read_names),
    "definition": ("study.toml", lambda folder: load_definition(folder / "study.toml", {})),
    "published-table": ("table.csv", lambda folder: forensics.read(folder / "table.csv")),
}
"""Name of the file, and how it is read, by the name of the parser."""


def main() -> None:
    """Fuzzes one parser until it fails or the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parser", choices=PARSERS, metavar="PARSER", help=", ".join(PARSERS))
    options, rest = parser.parse_known_args()
    name, read = PARSERS[options.parser]
    folder = write_data(Path(tempfile.mkdtemp(prefix="fuzz-")), valid_lines())

    def read_content(content: bytes) -> None:
        (folder / name).write_bytes(content)
        with contextlib.suppress(UserError):
            read(folder)

    atheris.Setup([sys.argv[0], *rest], read_content)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
