"""Commands on reports: compare, report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hirise_imb.cli.page import add_open_option, open_page
from hirise_imb.cli.parsing import Subparsers, add_command, add_quiet_option
from hirise_imb.cli.tables import make_console
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.terminal import write_line

_COMPARE = """\
Compare reports that were tested on the same landmarks: strategies of one study,
two backbones, two versions of the training data. Every arm is compared with the
baseline of the first REPORT. Reports are folders, as written by `run` and
`baseline`.

The comparison is written to OUT/reports/NAME/.
"""

_REPORT = """\
Rebuild a report from its own folder with this version of the program: the
folder contains everything that is needed but the pictures of landmarks.

The page shows a landmark of each class, and the most confident errors next to
the nearest training landmarks, from the data that the study used or that of
--data. With --pictures auto it shows them only if that data is the embedded
sample or the published archive, whose licences are known.
"""


_MODELS = """\
List the models that a study saved with its report: for each its scores on the
landmarks that the report tested, and its folder, which `hirise-imb predict` and
`hirise-imb export` take. MODEL/README.md is the model card.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the commands of this module."""
    compare = add_command(subparsers, "compare", _compare, "compare reports on the same test landmarks", _COMPARE)
    compare.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folder of a report")
    compare.add_argument("--name", help="name of the comparison (default: from the names of the folders)")
    compare.add_argument("--out", type=Path, default=Path(), help="folder for reports/ (default: here)")
    report = add_command(subparsers, "report", _report, "rebuild a report from its folder", _REPORT)
    report.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the report")
    report.add_argument("--pictures", default="auto", metavar="WHEN", help="landmarks on the page: auto, yes or no")
    report.add_argument("--data", help="place of the landmarks, if it is not the one that the study used")
    report.add_argument("--mlflow", metavar="URI", help="export the report to MLflow at this tracking URI")
    for parser in (compare, report):
        add_open_option(parser)
    add_quiet_option(compare, report)
    models = add_command(subparsers, "models", _models, "list the models saved with a report", _MODELS)
    models.add_argument("folder", type=Path, metavar="REPORT", help="folder of the report")


def _compare(options: argparse.Namespace) -> int:
    from hirise_imb.cli.report_tables import print_comparison, print_path
    from hirise_imb.pipeline.rebuild import compare_reports

    results, page = compare_reports(options.reports, options.name, options.out)
    if options.quiet:
        print_path(page, make_console())
    else:
        print_comparison(results, page, make_console())
    if options.open:
        open_page(page)
    return 0


def _report(options: argparse.Namespace) -> int:
    from hirise_imb.pipeline.mlflow_export import check_mlflow, export_report
    from hirise_imb.pipeline.rebuild import rebuild_report

    if options.data is not None and options.pictures == "no":
        raise UserError("--data is the place of the landmarks for --pictures, which is no: leave out one of them.")
    if options.mlflow is not None:
        check_mlflow(options.mlflow)
    page = rebuild_report(options.folder, pictures=options.pictures, data=options.data)
    write_line(f"Report: {page}")
    if options.mlflow is not None:
        export_report(options.folder, options.mlflow)
    if options.open:
        open_page(page)
    return 0


def _models(options: argparse.Namespace) -> int:
    from hirise_imb.cli.tables import empty_table
    from hirise_imb.pipeline.saved_models import list_models
    from hirise_imb.reporting.formatting import MISSING, percent, score

    entries, faults = list_models(options.folder)
    table = empty_table(f"Models in {options.folder}", padding=1)
    table.add_column("model", no_wrap=True)
    for heading in ("macro F1", "confident, %", "right, %", "size, MB"):
        table.add_column(heading, justify="right")
    table.add_column("report")
    for entry in entries:
        scores, point = entry.model.facts["scores"], entry.model.facts["operating_point"]
        table.add_row(
            entry.folder.name,
            score(scores["macro_f1"]),
            percent(point["coverage"]),
            MISSING if point["precision"] is None else percent(point["precision"]),
            f"{entry.size / 1e6:.1f}",
            "this one" if entry.is_current else "an earlier one",
        )
    if entries:
        console = make_console()
        console.print(table)
        threshold = entries[0].model.facts["operating_point"]["threshold"]
        console.print(f"Confident: calibrated probability of {threshold:g} or more.")
        console.print("Scores on the test split are of the mean of all fits; the report has means over single fits.")
        console.print(f"Folder: {entries[0].folder.parent}/MODEL", soft_wrap=True)
    for fault in faults:
        write_line(f"error: {fault}", sys.stderr)
    return 2 if faults else 0
