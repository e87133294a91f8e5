"""The command line: python -m hirise_imb.study ..."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import log_to_stderr, say

if TYPE_CHECKING:
    from hirise_imb.config import StudyDefinition

# Nothing heavy is imported up here: `--help` has to answer at once.

PROGRAM = "python -m hirise_imb.study"

RUN_HELP = """\
Run a study, or continue one: the reference baseline, a search over each
strategy, and a report of every class against the baseline.

Without a DEFINITION the demo runs: landmarks drawn on the spot, an embedded
backbone, no download. A definition is a TOML file (see studies/); an option
given here is used in place of what the file says.

The same command continues where it was interrupted: features, finished trials
and finished fits are not computed again. Asking for more --trials adds to
those that are there.

Several processes can share the searches: --workers here, `study work` from
anywhere. Which of them runs what plays no part in the results.

The report comes to OUT/reports/NAME/, the Optuna database to OUT/studies/.
"""

WORK_HELP = """Work on the searches of a study that runs elsewhere, until none is left. All
processes need the same DEFINITION, data and weights, and one database:

  study run DEFINITION --storage postgresql://user:password@host/database
  study work DEFINITION --storage postgresql://user:password@host/database

A trial whose worker died is run again by another one. Baseline, refits and
report are made by `study run`.
"""

BASELINE_HELP = """\
Fit the reference run of a study alone, and set it beside the published table:
each published figure, this model with predictions and labels aligned, and the
same predictions paired with shuffled labels.

DEFINITION and options are those of `run`; strategies and trials play no part.
The fits are those of the study of that name: neither command fits again what
the other has fitted. The published run trained on the repeated rows of the
split file: --rows split-file does so too.

The report comes to OUT/reports/NAME/baseline/ (or baseline-split-file/).
"""

COMPARE_HELP = """\
Set reports side by side that were tested on the same landmarks: strategies of
one study, two backbones, two versions of the training data. Every arm is set
against the baseline of the first REPORT. Reports are folders, as `run` and
`baseline` write them.

The comparison comes to OUT/reports/NAME/.
"""

REPORT_HELP = """\
Write a report again from its own folder, with this version of the program: all
that it was made from is kept there. Needs neither the data nor TensorFlow.

--thumbnails adds small pictures of the surest mistakes and of the rare classes
to the page; it takes the landmarks that the study ran on, or those of --data.
"""

DATA_HELP = """\
Landmarks come in three ways: drawn on the spot (`synthetic`), downloaded
(`hirise`, 0.9 GB), or from a zip or folder of yours in the official layout.
"""

IMPORT_HELP = """\
Unpack and check a zip, or check a folder, in the official layout. The official
archive becomes `hirise`, as if it had been downloaded; anything else is used by
its own path (--data PATH). Zips are unpacked into the cache folder.
"""


FORENSICS_HELP = """\
Find the counts behind a published table of precision, recall and F1, and say
whether it can come from a classifier at all. TABLE.csv has a column `class` and
any of `precision`, `recall`, `f1`, as printed: trailing zeros count. Figures
may be rounded half up or half to even; a precision of no prediction prints
as 0.

The verdict is one of: inconsistent with these supports, no better than a
shuffled pairing, better than chance, undecided; with its reason.
"""


_MENDABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
}
"""Of errors of the file system: what its user can do something about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 2 for an error the user can mend, 130 for an interruption."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        where = error.filename2 or error.filename or "the disk"
        print(f"error: {where}: {error.strerror}; mend that and run again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command continues from here.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM, description="Experiments on class imbalance for landmarks in orbital images of Mars."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_studies(commands)
    _add_reports(commands)
    _add_data(commands)
    _add_forensics(commands)
    summary = "open the Optuna dashboard of all studies of a folder or a database in a browser"
    dashboard = _add(commands, "dashboard", _dashboard, summary)
    dashboard.add_argument("--out", type=Path, default=Path(), help="where the studies were run (default: here)")
    dashboard.add_argument(
        "--storage", metavar="URL", help="address of their database (default: the file in OUT/studies/)"
    )
    dashboard.add_argument("--port", type=int, default=8080, help="port on this machine (default: 8080)")
    return parser


def _add(
    commands: Any,  # noqa: ANN401  (argparse keeps this type private)
    name: str,
    command: Callable[[argparse.Namespace], int],
    summary: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    return parser


def _add_studies(commands: Any) -> None:  # noqa: ANN401
    from hirise_imb.backbones import BACKBONES

    run = _add(commands, "run", _run, "run or continue a study and write its report", RUN_HELP)
    work = _add(commands, "work", _work, "work on the searches of a study that runs elsewhere", WORK_HELP)
    baseline = _add(commands, "baseline", _baseline, "set the reference run beside the published table", BASELINE_HELP)
    for command in (run, work, baseline):
        command.add_argument("definition", nargs="?", type=Path, metavar="DEFINITION", help="TOML file (default: demo)")
        command.add_argument("--name", help="of the report folder and the database (default: from definition or data)")
        command.add_argument("--data", help="synthetic, hirise, or the path of a zip or folder in the official layout")
        command.add_argument("--backbone", help="; ".join(f"{c.name} ({c.summary})" for c in BACKBONES.values()))
        command.add_argument("--weights", help="imagenet, random, or the path of a weights file")
        command.add_argument("--precision", help="float32, or bfloat16 (8 bits), which is faster on a GPU that has it")
        command.add_argument("--refits", type=int, help="seeds with which each recipe is fitted for the report")
        command.add_argument("--seed", type=int, help="of everything random; same seed, same machine, same numbers")
        command.add_argument(
            "--out", type=Path, default=Path(), help="folder for studies/ and reports/ (default: here)"
        )
    for command in (run, work):
        command.add_argument(
            "--strategies",
            type=lambda text: text.split(","),
            metavar="A,B,...",
            help="beside the control `plain`; `study strategies` lists them",
        )
        command.add_argument("--trials", type=int, help="finished trials each search comes to")
        command.add_argument(
            "--selection", help="how recipes are chosen: grouped-cv (folds of sources) or val (the given split)"
        )
    run.add_argument("--workers", type=int, default=1, help="processes that search, on this machine (default: 1)")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="begin no further trials after this time")
    run.add_argument("--thumbnails", action="store_true", help="show landmarks on the page, embedded at small size")
    address = "address of the database, such as postgresql://user:password@host/database"
    run.add_argument("--storage", metavar="URL", help=f"{address} (default: a file in OUT/studies/)")
    work.add_argument("--storage", metavar="URL", required=True, help=address)
    strategies = _add(commands, "strategies", _strategies, "list the strategies, or the parameters of one")
    strategies.add_argument("name", nargs="?", metavar="NAME", help="of the strategy whose parameters are shown")
    baseline.add_argument(
        "--rows",
        default="unique",
        help="that an epoch goes through: unique (each image once, the default) or split-file (its repeated rows)",
    )


def _add_reports(commands: Any) -> None:  # noqa: ANN401
    compare = _add(commands, "compare", _compare, "set reports on the same test landmarks side by side", COMPARE_HELP)
    compare.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folder of a report")
    compare.add_argument("--name", help="of the comparison (default: from the names of the folders)")
    compare.add_argument("--out", type=Path, default=Path(), help="folder for reports/ (default: here)")
    report = _add(commands, "report", _report, "write a report again from its folder", REPORT_HELP)
    report.add_argument("folder", type=Path, metavar="FOLDER", help="of the report")
    report.add_argument("--thumbnails", action="store_true", help="show landmarks on the page")
    report.add_argument("--data", help="where those are, if not where the study found them")


def _add_data(commands: Any) -> None:  # noqa: ANN401
    data = commands.add_parser("data", help="fetch, import or check landmarks", description=DATA_HELP)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    _add(actions, "fetch", _fetch, "download the official archive (0.9 GB, Zenodo record 4002935, CC BY 4.0)")
    summary = "unpack and check an archive, or check a folder, that you have"
    take = _add(actions, "import", _import, summary, IMPORT_HELP)
    take.add_argument("path", type=Path, metavar="ZIP_OR_DIR")
    check = _add(actions, "check", _check, "check landmarks and print classes by split")
    check.add_argument("path", metavar="PATH", help="zip or folder in the official layout, `synthetic` or `hirise`")


def _add_forensics(commands: Any) -> None:  # noqa: ANN401
    summary = "say what a published per-class table implies"
    forensics = _add(commands, "forensics", _forensics, summary, FORENSICS_HELP)
    forensics.add_argument("table", type=Path, metavar="TABLE.csv")
    forensics.add_argument(
        "--supports", metavar="N,N,...", help="test labels of each class, in the table's order, unless it has `support`"
    )
    forensics.add_argument(
        "--decimals",
        type=int,
        help="that all figures were printed with, where trailing zeros are lost (default: as is)",
    )
    for average in ("accuracy", "macro-precision", "macro-recall", "macro-f1"):
        forensics.add_argument(f"--{average}", metavar="X", help=f"the {average.replace('-', ' ')} printed with it")


def _definition(options: argparse.Namespace) -> StudyDefinition:
    from dataclasses import fields

    from hirise_imb import config

    given = {field.name: getattr(options, field.name, None) for field in fields(config.StudyDefinition)}
    chosen = {name: value for name, value in given.items() if value is not None}
    return (
        config.load_definition(options.definition, chosen) if options.definition else config.default_definition(chosen)
    )


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from hirise_imb.cli.report_tables import print_comparison
    from hirise_imb.pipeline.runner import RunOptions, run_study

    effort = RunOptions(options.storage, options.workers, options.timeout, options.thumbnails)
    results, page = run_study(_definition(options), options.out, effort)
    console = Console()
    print_comparison(results, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


def _work(options: argparse.Namespace) -> int:
    from hirise_imb.pipeline.runner import join_study

    join_study(_definition(options), options.out, options.storage)
    say("Nothing is left to search.")
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from rich.console import Console

    from hirise_imb.cli.strategy_list import print_strategies, print_strategy
    from hirise_imb.config import check_known
    from hirise_imb.strategies import STRATEGIES

    if options.name is None:
        print_strategies(Console())
    else:
        print_strategy(STRATEGIES[check_known("strategy", options.name, STRATEGIES)], Console())
    return 0


def _forensics(options: argparse.Namespace) -> int:
    from rich.console import Console

    from hirise_imb import forensics
    from hirise_imb.cli.forensics_table import print_finding

    averages = {}
    for name in forensics.AVERAGES:
        if (text := getattr(options, name)) is not None:
            try:
                averages[name] = forensics.Rounded.read(text.strip())
            except ValueError as error:
                raise UserError(f"--{name.replace('_', '-')} is {text!r}: it {error}.") from error
    table = forensics.read(options.table, options.supports, options.decimals)
    print_finding(forensics.examine(table, averages), Console())
    return 0


def _baseline(options: argparse.Namespace) -> int:
    from rich.console import Console

    from hirise_imb.cli.report_tables import print_baseline
    from hirise_imb.pipeline.runner import run_baseline

    baseline, page = run_baseline(_definition(options), options.rows, options.out)
    console = Console()
    print_baseline(baseline, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from hirise_imb.cli.report_tables import print_comparison
    from hirise_imb.pipeline.rebuild import compare

    results, page = compare(options.reports, options.name, options.out)
    console = Console()
    print_comparison(results, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


def _report(options: argparse.Namespace) -> int:
    from hirise_imb.pipeline.rebuild import rewrite

    if options.data is not None and not options.thumbnails:
        raise UserError("--data says where landmarks for --thumbnails are: give both, or neither.")
    page = rewrite(options.folder, thumbnails=options.thumbnails, data=options.data)
    print(f"Report: {page}")
    return 0


def _fetch(_: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import fetch_hirise

    return _show(str(fetch_hirise()), "hirise")


def _import(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import import_landmarks

    return _show(*import_landmarks(options.path))


def _check(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import resolve_data

    return _show(str(resolve_data(options.path)), options.path)


def _show(folder: str, name: str) -> int:
    """Check landmarks and print classes by split."""
    from rich.console import Console
    from rich.table import Table

    from hirise_imb.data.hirise import CLASSES, SPLITS
    from hirise_imb.data.images import check_images
    from hirise_imb.data.manifest import read_manifest

    images = read_manifest(Path(folder))
    check_images([images.path(image) for image in images.table["image"]])
    summary = images.summary().set_index(["split", "class"])
    console = Console()
    for split in SPLITS:
        table = Table(title=split, title_justify="left")
        table.add_column("class", min_width=13)
        counts = ("sources", "landmarks", "images", "rows")
        for count in counts:
            table.add_column(count, justify="right")
        for label in CLASSES:
            table.add_row(label, *(str(summary.loc[(split, label), count]) for count in counts))
        console.print(table)
        if absent := [label for label in CLASSES if not summary.loc[(split, label), "landmarks"]]:
            console.print(f"No {split} landmark of: {', '.join(absent)}; macro F1 counts such a class as 0.")
    console.print(f"No mistakes in {folder}. Run a study on it with --data {name}", highlight=False, soft_wrap=True)
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    if not 0 < options.port < 65536:
        raise UserError(f"--port is {options.port}: use a number from 1 to 65535.")
    from hirise_imb.search.dashboard import artifacts_folder, serve_dashboard
    from hirise_imb.search.database import database_path

    place = database_path(options.out) if options.storage is None else options.storage
    serve_dashboard(place, artifacts_folder(options.out), options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
