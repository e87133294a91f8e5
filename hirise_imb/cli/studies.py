"""Commands that plan and run studies: run, work, plan, baseline, strategies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.page import add_open_option, open_page
from hirise_imb.cli.parsing import Subparsers, add_command, add_quiet_option
from hirise_imb.cli.tables import make_console
from hirise_imb.utils.terminal import write_line

if TYPE_CHECKING:
    from hirise_imb.config import StudyDefinition

_RUN = """\
Run a study, or continue one: the reference baseline, a hyperparameter search
for each strategy, and a report of every class against the baseline.

Without a DEFINITION the demo runs: synthetic landmarks, an embedded backbone,
no download. A definition is a TOML file (see studies/); options given here take
precedence over the file.

The same command continues where it was interrupted: features, finished trials
and finished fits are not computed again. Asking for more --trials adds to the
existing ones; asking for fewer than the existing report has is refused unless
--replace is given.

Arms are evaluated by two designs (--evaluation). nested-cv tests each source
once: every strategy is searched, selected and fitted without an outer fold of
sources, which is then predicted; the report leads with it. given-split is the
published protocol: selected on training and validation, scored on test.

Several processes can share the searches: --workers on this machine, and
`hirise-imb work` anywhere. Results do not depend on which process ran what.

The report is written to OUT/reports/NAME/, the Optuna database to OUT/studies/,
and models that predict new images (see `hirise-imb models`, `predict`) to
OUT/reports/NAME/models/.
"""

_SAVED = "finished features, trials and fits are saved; the same command continues from there."

_WORK = """\
Work on the searches of a study that runs elsewhere, until none is left. All
processes need the same DEFINITION, data and weights, and one database:

  hirise-imb run DEFINITION --storage postgresql://user:password@host/database
  hirise-imb work DEFINITION --storage postgresql://user:password@host/database

A trial whose worker died is run again by another worker. The baseline, the
refits and the report are the work of `hirise-imb run`.
"""

_PLAN = """\
Show what a study will be able to tell and what it will take, without running
any of it: sources by class, the minimum detectable difference of macro F1 under
each design (simulated), and fits, disk and time.

DEFINITION and options are those of `run`. Nothing is written, except that
landmarks are drawn or unpacked into the cache folder if they are not there yet.
"""

_BASELINE = """\
Fit the reference run of a study alone, and compare it with the published table:
each published figure, this model with predictions and labels aligned, and the
same predictions paired with shuffled labels.

DEFINITION and options are those of `run`; strategies and trials are not used.
Fits are shared with the study of the same name: neither command repeats what
the other has fitted. The published run trained on the repeated rows of the
split file; --rows split-file does so too.

The report is written to OUT/reports/NAME/baseline/ (or baseline-split-file/).
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the commands of this module."""
    run = add_command(subparsers, "run", _run, "run or continue a study and write its report", _RUN, _SAVED)
    work = add_command(subparsers, "work", _work, "work on the searches of a study that runs elsewhere", _WORK, _SAVED)
    plan = add_command(subparsers, "plan", _plan, "show what a study can detect, and what it takes; run nothing", _PLAN)
    summary = "compare the reference run with the published table"
    baseline = add_command(subparsers, "baseline", _baseline, summary, _BASELINE, _SAVED)
    for parser in (run, work, plan, baseline):
        _add_definition_options(parser)
    add_quiet_option(run, work, baseline)
    for parser in (run, work, plan):
        parser.add_argument(
            "--metric",
            help="target of searches, choices and tests: macro_f1 (the default), balanced_accuracy, g_mean, "
            "mean_average_precision, recall_at_precision:P such as recall_at_precision:0.9, or cost",
        )
        parser.add_argument(
            "--costs",
            action="append",
            metavar="'TRUE, PREDICTED, COST'",
            help="cost of a mistake for --metric cost, such as 'impact ejecta, other, 10'; repeat it for others",
        )
        parser.add_argument(
            "--strategies",
            type=lambda text: text.split(","),
            metavar="A,B,...",
            help="strategies in addition to the control `plain`; `hirise-imb strategies` lists them",
        )
        parser.add_argument(
            "--evaluation",
            type=lambda text: text.split(","),
            metavar="A,B",
            help="designs of the evaluation: given-split, nested-cv, or both (default: both)",
        )
        parser.add_argument("--outer-folds", type=int, help="number of outer folds of nested-cv (default: 5)")
        parser.add_argument("--repeats", type=int, help="number of nested cross-validations (default: 1)")
        parser.add_argument(
            "--inner-seeds", type=int, help="--trial-seeds of nested-cv, which searches in each outer fold (default: 1)"
        )
        parser.add_argument(
            "--trials",
            type=int,
            help="number of finished trials of each search, or of its distinct settings if it has fewer",
        )
        parser.add_argument(
            "--fine-tuning-trials",
            type=int,
            help="the same of searches that fine-tune the backbone, where --trials is more (default: 20)",
        )
    run.add_argument(
        "--workers", type=int, default=1, help="number of processes that search on this machine (default: 1)"
    )
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="start no further trials after this time")
    run.add_argument(
        "--pictures",
        default="auto",
        metavar="WHEN",
        help="landmarks on the page: yes, no, or auto (where the licence of the images is known, the default)",
    )
    run.add_argument(
        "--replace", action="store_true", help="replace a report that was made with more trials or more refits"
    )
    run.add_argument(
        "--save-models",
        metavar="WHICH",
        help="models kept in the report: none, chosen (baseline and chosen arms, the default) or all",
    )
    address = "address of the database, such as postgresql://user:password@host/database"
    run.add_argument(
        "--dry-run", action="store_true", help="print fits, disk and time; run nothing and write no report"
    )
    for parser in (run, baseline):
        add_open_option(parser)
    run.add_argument("--storage", metavar="URL", help=f"{address} (default: a file in OUT/studies/)")
    run.add_argument("--mlflow", metavar="URI", help="export the report to MLflow at this tracking URI")
    work.add_argument("--storage", metavar="URL", required=True, help=address)
    baseline.add_argument(
        "--rows",
        default="unique",
        help="rows of an epoch: unique (each image once, the default) or split-file (its repeated rows)",
    )
    summary = "list the strategies, or the hyperparameters of one"
    strategies = add_command(subparsers, "strategies", _strategies, summary)
    strategies.add_argument("name", nargs="?", metavar="NAME", help="strategy whose hyperparameters are shown")


def _add_definition_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that take precedence over the keys of a definition."""
    parser.add_argument("definition", nargs="?", type=Path, metavar="DEFINITION", help="TOML file (default: demo)")
    parser.add_argument(
        "--name", help="name of the report folder and in the database (default: from definition or data)"
    )
    parser.add_argument("--data", help="synthetic, hirise, or the path of a zip, folder or annotation table")
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images of an annotation table (default: its own)"
    )
    parser.add_argument("--dataset", help="data set of data in the official layout (default: hirise-v3_2)")
    named = "; ".join(f"{card.name} ({card.summary})" for card in BACKBONES.values() if ":" not in card.name)
    parser.add_argument(
        "--backbone", help=f"{named}; or a network of keras.applications by its name, such as keras:ConvNeXtTiny"
    )
    parser.add_argument("--weights", help="imagenet, random, or the path of a weights file")
    parser.add_argument(
        "--precision", help="float32, or bfloat16 (8 bits of significand), which is faster on a GPU that supports it"
    )
    parser.add_argument(
        "--features", metavar="FILE", help="Parquet file of features made elsewhere, in place of those of a backbone"
    )
    parser.add_argument(
        "--trial-seeds", type=int, help="number of seeds with which recipes are scored by cross-validation (default: 3)"
    )
    parser.add_argument("--refits", type=int, help="number of seeds with which each recipe is fitted for the report")
    parser.add_argument("--seed", type=int, help="random seed; on one machine the same seed gives the same numbers")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for studies/ and reports/ (default: here)")


def _read_definition(options: argparse.Namespace) -> StudyDefinition:
    from dataclasses import fields

    from hirise_imb.config import StudyDefinition, default_definition, load_definition

    values = {field.name: getattr(options, field.name, None) for field in fields(StudyDefinition)}
    overrides = {name: value for name, value in values.items() if value is not None}
    return load_definition(options.definition, overrides) if options.definition else default_definition(overrides)


def _run(options: argparse.Namespace) -> int:
    from hirise_imb.cli.report_tables import print_comparison, print_path
    from hirise_imb.pipeline.mlflow_export import check_mlflow, export_report
    from hirise_imb.pipeline.runner import RunOptions, check_options, run_study

    run_options = RunOptions(
        storage=options.storage,
        workers=options.workers,
        timeout=options.timeout,
        pictures=options.pictures,
        replace=options.replace,
        save_models=options.save_models,
    )
    definition = _read_definition(options)
    if options.dry_run:
        from hirise_imb.cli.plan_tables import print_cost
        from hirise_imb.pipeline.plan import plan_study

        plan = plan_study(definition)
        check_options(definition, options.out, run_options)
        print_cost(plan, make_console())
        return 0
    if options.mlflow is not None:
        check_mlflow(options.mlflow)
    results, page = run_study(definition, options.out, run_options)
    if options.quiet:
        print_path(page, make_console())
    else:
        print_comparison(results, page, make_console())
    if options.mlflow is not None:
        export_report(page.parent, options.mlflow)
    if options.open:
        open_page(page)
    return 0


def _work(options: argparse.Namespace) -> int:
    from hirise_imb.pipeline.runner import join_study

    join_study(_read_definition(options), options.out, options.storage)
    write_line("No trials are left.")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from hirise_imb.cli.plan_tables import print_plan
    from hirise_imb.pipeline.plan import plan_study

    print_plan(plan_study(_read_definition(options)), make_console())
    return 0


def _baseline(options: argparse.Namespace) -> int:
    from hirise_imb.cli.report_tables import print_baseline, print_path
    from hirise_imb.pipeline.runner import run_baseline

    baseline, page = run_baseline(_read_definition(options), options.rows, options.out)
    if options.quiet:
        print_path(page, make_console())
    else:
        print_baseline(baseline, page, make_console())
    if options.open:
        open_page(page)
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from hirise_imb.cli.strategy_list import print_strategies, print_strategy
    from hirise_imb.config import check_known
    from hirise_imb.strategies import STRATEGIES

    if options.name is None:
        print_strategies(make_console())
    else:
        print_strategy(STRATEGIES[check_known("strategy", options.name, STRATEGIES)], make_console())
    return 0
