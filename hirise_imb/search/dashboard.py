"""What the Optuna dashboard shows beyond numbers: a picture of each trial, a note of each search; and the server."""

from __future__ import annotations

import csv
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
import optuna
import sqlalchemy
from numpy.typing import NDArray
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.data.hirise import CLASSES
from hirise_imb.search.database import Storage, connect, display_address
from hirise_imb.search.search import PublishTrial, Search, SearchResult, finished_trials
from hirise_imb.strategies import Strategy
from hirise_imb.training.epoch_loop import Failed
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import say

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

PICTURE = "confusion.png"
TABLE = "confusion.csv"

KEPT = "*The search writes what stands above this line; notes of yours below it are kept.*"

_SELECTION = {
    "val": "the validation split",
    "grouped-cv": "held-out folds of training and validation, whole observations each",
}

_ENOUGH = 8
"""Complete trials from which importances are shown."""

_MANY = 50
"""Complete trials from which they are more than a hint; by experience, no theory."""

_SAME = 1e-4
"""Values that differ by less do not tell settings apart, and leave trees without a split."""

_MOST = 10
"""Reasons of failures that a note lists."""


def artifacts_folder(out: Path) -> Path:
    """Where pictures of trials are, for all studies below `out`."""
    return out / "studies" / "artifacts"


def make_publisher(store: Storage, out: Path) -> PublishTrial:
    """Shows the confusion matrix of each run as artifacts of its trial, a picture and a table.

    Args:
        store: holds the trials.
        out: folder that holds `studies/`.

    Raises:
        UserError: the folder of the artifacts can't be written to.
    """
    artifacts = FileSystemArtifactStore(ensure_folder(artifacts_folder(out)))

    def publish(trial: FrozenTrial, run: Run) -> None:
        title = f"Trial {trial.number}: macro F1 {run.val_macro_f1:.3f} on held-out landmarks"
        with tempfile.TemporaryDirectory() as folder:
            picture, table = Path(folder, PICTURE), Path(folder, TABLE)
            _drawn(run.val_confusion, title).save(picture)
            _write_table(run.val_confusion, table)
            for path in (picture, table):
                upload_artifact(artifact_store=artifacts, file_path=str(path), study_or_trial=trial, storage=store)

    return publish


def write_study_note(store: Storage, search: Search) -> None:
    """Say in Markdown, as the note of the study, what was searched and found.

    It tells of the same trials as `search.choose`. What a user has written below its last line is kept; written again
    without news, it is left as it is.

    Args:
        store: holds the study.
        search: ended, or under way.
    """
    from optuna_dashboard import get_note, save_note

    before = get_note(search.study)
    theirs = before.partition(KEPT)[2] if KEPT in before else f"\n\n{before}" if before else ""
    chosen = search.choose()  # first: trials that end meanwhile are told of, the chosen one must be among them
    trials = [trial for place, trial in finished_trials(search.study).items() if place < search.trials]
    told = "\n\n".join(_told(store, search, chosen, trials))
    if before.startswith(f"{told}\n\n"):
        return  # nor are importances of the same trials computed again, which takes seconds
    importance = "\n\n".join(_importance(search.strategy, trials))
    save_note(search.study, f"{told}\n\n## Importance of parameters\n\n{importance}\n\n---\n\n{KEPT}{theirs}")


def serve_dashboard(place: Path | str, artifacts: Path, port: int) -> None:
    """Run the dashboard of all studies in a database, for this machine alone, until it is interrupted.

    Args:
        place: the database, a file or an address.
        artifacts: folder of the pictures; those that another machine has put elsewhere can't be shown.
        port: on 127.0.0.1.

    Raises:
        UserError: there is no such database, or the port can't be used.
    """
    from optuna_dashboard import wsgi

    name = display_address(place)
    file = place if isinstance(place, Path) else _file(name)
    if file is not None and not file.exists():
        raise UserError(f"There is no database {file}: run a study first, or say where it is with --out or --storage.")
    store = connect(place)
    try:
        # It has no password, so it listens to this machine alone.
        application = wsgi(store, artifact_store=FileSystemArtifactStore(ensure_folder(artifacts)))
        try:
            server = make_server("127.0.0.1", port, application, _Server, _Quiet)
        except OSError as error:
            raise UserError(f"Port {port} can't be used ({error.strerror}): choose another with --port.") from error
        say(f"The dashboard of {name} is at http://127.0.0.1:{port}/ until you press Ctrl-C.")
        with server, suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        store.engine.dispose()


class _Server(ThreadingMixIn, WSGIServer):
    """Browsers open connections ahead and leave them idle; one at a time would wait for those."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Does not tell of each request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def _file(address: str) -> Path | None:
    """The file that an address without password names, if it names one."""
    url = sqlalchemy.make_url(address)
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


# --- the picture: drawn with Pillow, some 15 ms; the figures of reports take matplotlib 350 ms each ---

_CELL = 60
_LEFT = 104
_TOP = 60
_SIZE = (_LEFT + _CELL * len(CLASSES) + 16, _TOP + _CELL * len(CLASSES) + 44)
_INK = "#111827"
_LINE = "#e5e7eb"


def _drawn(confusion: NDArray[np.int64], title: str) -> Image:
    """Colour is the share of the true class, text gives the share in per cent and the count, as in reports.

    Args:
        confusion: counts, shape (8, 8); rows are true classes.
        title: first line.
    """
    import matplotlib as mpl
    from PIL import Image, ImageDraw

    totals = confusion.sum(axis=1)
    shares = confusion / np.maximum(totals, 1)[:, np.newaxis]
    colours = mpl.colormaps["Blues"](shares, bytes=True).tolist()
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    small, large = _font(12), _font(14)
    draw.text((8, 8), title, _INK, large)
    draw.text(
        (8, 32), "rows: true class (landmarks); columns: predicted class; cells: % of the row, count", _INK, small
    )
    end = _CELL * len(CLASSES)
    draw.rectangle((_LEFT - 1, _TOP - 1, _LEFT + end - 1, _TOP + end - 1), _LINE)
    for k, name in enumerate(CLASSES):
        place = _CELL * k + _CELL // 2
        broken = name.replace(" ", "\n")
        draw.multiline_text((_LEFT - 8, _TOP + place), f"{name}\n({totals[k]})", _INK, small, "rm", align="right")
        draw.multiline_text((_LEFT + place, _TOP + end + 6), broken, _INK, small, "ma", align="center")
        for j, count in enumerate(confusion[k]):
            x, y = _LEFT + _CELL * j, _TOP + _CELL * k
            draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), tuple(colours[k][j]))
            if count > 0 or k == j:
                text, colour = f"{100 * shares[k, j]:.0f}\n{count}", "white" if shares[k, j] > 0.55 else _INK
                middle = (x + _CELL // 2, y + _CELL // 2)
                draw.multiline_text(middle, text, colour, small, "mm", align="center")
    return image


@cache
def _font(size: int) -> FreeTypeFont:
    """The one of the figures, which comes with matplotlib."""
    import matplotlib as mpl
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _write_table(confusion: NDArray[np.int64], path: Path) -> None:
    """One row for each pair of classes, named as in the tables of reports."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("true_class", "predicted_class", "count"))
        for name, counts in zip(CLASSES, confusion.tolist(), strict=True):
            writer.writerows((name, predicted, count) for predicted, count in zip(CLASSES, counts, strict=True))


# --- the note ---


def _told(store: Storage, search: Search, chosen: SearchResult | Failed, trials: Sequence[FrozenTrial]) -> list[str]:
    """All but the importances."""
    strategy = search.strategy
    summary = strategy.summary[:1].upper() + strategy.summary[1:]
    parts = [f"# {_plain(strategy.name)}", f"{_plain(summary)}. Source: {_plain(strategy.source)}."]
    chosen_by = search.study.user_attrs["facts"].get("selection")
    if chosen_by in _SELECTION:
        parts.append(f"The best trial is the one with the highest macro F1 on {_SELECTION[chosen_by]}.")
    parts += ["## Trials", *_fates(search, trials)]
    settings: Mapping[str, object] = {}
    if isinstance(chosen, SearchResult):
        settings = chosen.settings
        [best] = [trial for trial in trials if trial.user_attrs["place"] == chosen.trial]
        parts += ["## Best trial", *_best(store, search, best)]
    else:
        parts.append(f"There is no best trial: {_plain(chosen.reason)}.")
    return [*parts, "## Parameters", _parameters(strategy, settings)]


def _fates(search: Search, trials: Sequence[FrozenTrial]) -> list[str]:
    """What became of the trials."""
    states = Counter(trial.state for trial in trials)
    kinds = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    named = ", ".join(
        f"{states[state]} {word}" for state, word in zip(kinds, ("complete", "pruned", "failed"), strict=True)
    )
    parts = [f"{len(trials)} of {search.trials} are finished: {named}."]
    reasons = Counter(trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs)
    if reasons:
        lines = [f"- {count} failed: {_plain(reason)}" for reason, count in reasons.most_common(_MOST)]
        more = len(reasons) - _MOST
        parts.append("\n".join(lines + [f"- and {more} more reasons"] * (more > 0)))
    failed = search.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    broken = sum("error" not in trial.user_attrs for trial in failed)
    if broken:
        parts.append(f"{broken} more were broken off, since their process was interrupted or died, and run again.")
    return parts


def _best(store: Storage, search: Search, best: FrozenTrial) -> list[str]:
    study = store.get_study_id_from_name(search.study.study_name)
    trial = store.get_trial_id_from_study_id_trial_number(study, best.number)
    link = f"[Trial {best.number}](/dashboard/studies/{study}/trials?numbers={best.number})"
    epoch = best.user_attrs["best_epoch"]
    kept = f", kept from epoch {epoch}" if epoch else ""  # a head that is computed has none
    parts = [f"{link}: macro F1 {best.values[0]:.3f}{kept}."]
    rows = [(_plain(name), f"{best.user_attrs[f'f1/{name}']:.3f}") for name in CLASSES]
    parts.append(_table(("class", "F1"), rows))
    pictures = [meta for meta in get_all_artifact_meta(best, storage=store) if meta.filename == PICTURE]
    # The dashboard has no public function for this address that takes a finished trial.
    parts += [f"![confusion matrix](/artifacts/{study}/{trial}/{meta.artifact_id})" for meta in pictures]
    return parts


def _parameters(strategy: Strategy, settings: Mapping[str, object]) -> str:
    rows = []
    for parameter in strategy.space:
        there = f" (with {_condition(parameter.when)})" if parameter.when else ""
        best = settings.get(parameter.name, "–")
        value = f"{best:.4g}" if isinstance(best, float) else str(best)
        words = (parameter.name, value, parameter.describe_range() + there, parameter.help, parameter.source)
        rows.append([_plain(word) for word in words])
    return _table(("parameter", "best", "range", "what it is", "source"), rows) if rows else "It has none."


def _importance(strategy: Strategy, trials: Sequence[FrozenTrial]) -> list[str]:
    """By fANOVA: Optuna's own default hides the effect of words beside that of numbers."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    values = [trial.values[0] for trial in complete]
    if len(complete) < _ENOUGH:
        return [f"Left out: it takes {_ENOUGH} complete trials."]
    if np.ptp(values) < _SAME:
        return ["Left out: all trials came to the same value."]
    why = {parameter.name: _uncovered(parameter.name, complete) for parameter in strategy.space}
    covered = [name for name, reason in why.items() if reason is None]
    parts = []
    if covered:
        aside = optuna.create_study(direction="maximize")
        aside.add_trials(complete)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(aside, evaluator=evaluator, params=covered)
        hint = ". So few trials give a hint, no finding." if len(complete) < _MANY else "."
        parts.append(
            f"Share of what each parameter explains alone of the differences between {len(complete)} complete trials "
            f"(fANOVA; Hutter et al. 2014){hint}"
        )
        parts.append(_table(("parameter", "share"), [(_plain(name), f"{share:.2f}") for name, share in shares.items()]))
    missing = [f"{_plain(name)} ({reason})" for name, reason in why.items() if reason is not None]
    return parts + [f"Not covered: {', '.join(missing)}."] * bool(missing)


def _uncovered(name: str, complete: Sequence[FrozenTrial]) -> str | None:
    """Why fANOVA can tell nothing about a parameter; None where it can."""
    if any(name not in trial.params for trial in complete):
        return "not part of every trial"
    if len({trial.params[name] for trial in complete}) == 1:
        return "the same in all trials"
    if len({trial.distributions[name] for trial in complete}) > 1:
        return "its range was changed"
    return None


def _condition(when: tuple[str, Sequence[object]]) -> str:
    return f"{when[0]} = {' or '.join(map(str, when[1]))}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Markdown that shows the text as it is, in one line."""
    return re.sub(r"([\\`*_~\[\]<>|$#&])", r"\\\1", " ".join(text.split()))
