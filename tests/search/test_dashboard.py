"""The dashboard: pictures of trials, notes of searches, and the server."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pandas as pd
import pytest
from builders import quick
from fake_searches import create_database
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.artifacts import FileSystemArtifactStore
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note, wsgi
from PIL import Image
from sklearn.metrics import f1_score

from hirise_imb.cli.main import main
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.recipe import Recipe
from hirise_imb.search.dashboard import artifacts_folder, make_publisher, write_study_note
from hirise_imb.search.dashboard.notes import SEPARATOR
from hirise_imb.search.database import Storage, connect, database_path
from hirise_imb.search.digests import DIGEST, compute_digest
from hirise_imb.search.identifiers import SearchPlace
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Fit, Search
from hirise_imb.search.trial_store import open_trial_store
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed

CLASSES = HIRISE.classes
STRATEGY = STRATEGIES["class_weights"]
CONTEXT = RecipeContext(("late", "early"))
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
EPOCHS = 12
REASON = "loss is <nan> in epoch 3 | *odd* [text](x) `_a_`\n& more"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def storage(out: Path) -> Iterator[Storage]:
    opened = connect(create_database(database_path(out)))
    yield opened
    opened.engine.dispose()


@dataclass
class FakeFit:
    """Invented scores: `value` gives the share of correct predictions of a recipe, or the reason why it fails."""

    value: Callable[[Recipe], float | str]
    confusions: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Confusion matrices of each recipe, by the recipe as JSON."""

    def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        value = self.value(recipe)
        if isinstance(value, str):
            raise FitFailed(value)
        for epoch in range(1, EPOCHS + 1):
            on_epoch(epoch, value * epoch / EPOCHS)
        hits = np.round(value * np.array([1000, 90, 60, 50, 20, 7, 40, 30])).astype(int)
        confusion = np.diag(hits) + np.roll(np.diag(np.arange(8, 0, -1)), 1, axis=1)
        # With the second seed, three more landmarks of the first class are right.
        better = confusion.copy()
        better[0, :2] += (3, -3)
        validation = make_validation(confusion, better)
        self.confusions[json.dumps(recipe.to_dict())] = validation.confusions
        return validation


def make_validation(*confusions: NDArray[np.int64], **changes: Any) -> CrossValidation:  # noqa: ANN401
    """Returns a cross-validation with these confusion matrices, one a seed."""
    validation = CrossValidation(
        seeds=tuple(range(len(confusions))),
        epochs=(EPOCHS,),
        capped=False,
        history=pd.DataFrame(),
        confusions=np.stack(confusions),
        score=float(np.mean([_macro_f1(counts) for counts in confusions])),
        log_probabilities=np.zeros((len(confusions), 0, len(confusions[0])), np.float32),
        temperatures=(1.0,),
        notes=(),
        seconds=1.5,
    )
    return dataclasses.replace(validation, **changes)


def _macro_f1(counts: NDArray[np.int64]) -> float:
    true, predicted = np.indices(counts.shape)
    weights = counts.ravel()
    return float(f1_score(true.ravel(), predicted.ravel(), average="macro", sample_weight=weights, zero_division=0))


def quality(recipe: Recipe) -> float:
    """An objective with one peak, at a learning rate of 0.001."""
    return float(0.6 + 0.3 * np.cos(2 * np.log10(recipe.learning_rate / 1e-3)))


def open_search(storage: Storage, trials: int, name: str = "class_weights") -> Search:
    trial_store = open_trial_store(storage, f"demo/{name}", FACTS)
    return Search(trial_store, STRATEGIES[name], CONTEXT, trials, 0, CLASSES)


def run_search(storage: Storage, out: Path, trials: int, fit: Fit, name: str = "class_weights") -> Search:
    search = open_search(storage, trials, name)
    publish = make_publisher(storage, out, CLASSES)
    while search.train_next_trial(Leases(storage.engine), fit, lambda done: None, publish):
        pass
    assert search.is_complete()
    write_study_note(search)
    return search


def ask(storage: Storage, out: Path, path: str) -> tuple[str, bytes]:
    """Returns content type and body of the dashboard's answer to a GET request."""
    answers: list[tuple[str, dict[str, str]]] = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    application = wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts_folder(out)))
    parts = application(environment, lambda status, headers, *rest: answers.append((status, dict(headers))))
    body = b"".join(parts)
    getattr(parts, "close", lambda: None)()
    [(status, headers)] = answers
    assert status == "200 OK"
    return headers["Content-Type"], body


def api(storage: Storage, out: Path, path: str) -> Any:  # noqa: ANN401
    return json.loads(ask(storage, out, f"/api/{path}")[1])


def artifact(storage: Storage, out: Path, study: int, trial: dict[str, Any], name: str) -> tuple[str, bytes]:
    [meta] = [entry for entry in trial["artifacts"] if entry["filename"] == name]
    return ask(storage, out, f"/artifacts/{study}/{trial['trial_id']}/{meta['artifact_id']}")


def note(search: Search) -> str:
    return str(get_note(search.trial_store.study))


def section(search: Search, title: str) -> str:
    return note(search).partition(f"## {title}\n\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Returns the rows of a Markdown table by their first cells, without the header."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0].replace("\\", ""): line[1:] for line in lines[2:]}


# --- what is shown of a search ---


def scripted(values: Sequence[float | str]) -> FakeFit:
    """Returns an objective that gives `values` in the order in which it is asked."""
    left = iter(values)
    return FakeFit(lambda recipe: next(left))


def test_all_studies_of_a_project_are_shown(storage: Storage, out: Path) -> None:
    names = ["class_weights", "focal_loss"]
    for name in names:
        run_search(storage, out, 3, FakeFit(quality), name)
    summaries = api(storage, out, "studies")["study_summaries"]
    assert [study["study_name"] for study in summaries] == [f"demo/{name}" for name in names]
    for name, study in zip(names, summaries, strict=True):
        detail = api(storage, out, f"studies/{study['study_id']}")
        assert [trial["state"] for trial in detail["trials"]] == ["Complete"] * 3
        assert STRATEGIES[name].source.replace("&", "\\&") in detail["note"]["body"]


def test_each_complete_trial_has_its_picture_and_table(storage: Storage, out: Path) -> None:
    # The third trial fails; one that is far below the others is trained to its end.
    fit = scripted([0.9, 0.8, "it broke", 0.85, 0.9, 0.8, 0.9, 0.7, 0.1, 0.9])
    search = run_search(storage, out, 10, fit)
    detail = api(storage, out, "studies/1")
    states = [trial["state"] for trial in detail["trials"]]
    assert states == ["Complete"] * 2 + ["Fail"] + ["Complete"] * 7
    for shown, trial in zip(detail["trials"], search.trial_store.study.trials, strict=True):
        if shown["state"] == "Fail":
            assert shown["artifacts"] == []
            continue
        kind, body = artifact(storage, out, 1, shown, "confusion.png")
        assert kind == "image/png"
        image = Image.open(io.BytesIO(body))
        assert image.format == "PNG"
        assert 580 <= image.width <= 620
        kind, body = artifact(storage, out, 1, shown, "confusion.csv")
        assert kind == "text/csv"
        table = list(csv.DictReader(io.StringIO(body.decode())))
        assert [line["true_class"] for line in table] == [name for name in CLASSES.names for _ in CLASSES.names]
        assert [line["predicted_class"] for line in table] == [*CLASSES.names] * 8
        counts = np.array([float(line["count"]) for line in table]).reshape(8, 8)
        confusions = fit.confusions[json.dumps(trial.user_attrs["recipe"])]
        np.testing.assert_array_equal(counts, confusions.mean(axis=0))  # over seeds; two of them are not integers
        assert sum(trial.values) == pytest.approx(np.mean([_macro_f1(confusion) for confusion in confusions]))


def test_the_picture_is_coloured_by_row(storage: Storage, out: Path) -> None:
    confusion = 5 * np.eye(8, dtype=int)
    confusion[:2, :2] = [[300, 100], [3, 2]]
    confusion[7, 0] = 5
    search = open_search(storage, 1)
    trial_id = storage.create_new_trial(1)
    make_publisher(storage, out, CLASSES)(storage.get_trial(trial_id), make_validation(confusion))
    [shown] = api(storage, out, "studies/1")["trials"]
    image = Image.open(io.BytesIO(artifact(storage, out, 1, shown, "confusion.png")[1])).convert("RGB")
    pixels = np.asarray(image).reshape(-1, 3)
    colours = {share: mpl.colormaps["Blues"](share, bytes=True)[:3] for share in (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)}
    area: dict[float, int] = {}
    places: dict[float, tuple[float, ...]] = {}
    for share, colour in colours.items():
        same = np.flatnonzero((pixels == np.array(colour)).all(axis=1))
        area[share] = len(same)
        places[share] = tuple(np.median(np.divmod(same, image.width), axis=1))
    cell, rest = divmod(area[0.0], 53)
    assert cell > 50**2
    assert rest == 0  # no text in cells without landmarks
    for share, cells in {0.25: 1, 0.4: 1, 0.5: 2, 0.6: 1, 0.75: 1, 1.0: 5}.items():
        assert 0.9 * cells * cell < area[share] < cells * cell  # numbers take some of it
    assert places[0.75][0] == pytest.approx(places[0.25][0], abs=8)  # rows are true classes ...
    assert places[0.25][1] > places[0.75][1] + 40  # ... and columns predicted ones
    assert places[0.6][0] > places[0.75][0] + 40
    assert search.trial_store.study.get_trials()[0].state is TrialState.RUNNING


def test_a_trial_that_another_process_has_closed_gets_no_picture(storage: Storage, out: Path) -> None:
    open_search(storage, 1)
    trial_id = storage.create_new_trial(1)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    validation = make_validation(np.eye(8, dtype=int))
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):  # the search knows what that means
        make_publisher(storage, out, CLASSES)(storage.get_trial(trial_id), validation)
    assert list(artifacts_folder(out).iterdir()) == []


def test_classes_come_from_the_data_at_hand(storage: Storage, out: Path) -> None:
    classes = ClassSet(("sand", "dark rock", "ice"))
    trial_store = open_trial_store(storage, "demo/plain", FACTS)
    search = Search(trial_store, STRATEGIES["plain"], CONTEXT, 1, 0, classes)
    confusion = np.array([[5, 1, 0], [2, 3, 1], [0, 0, 4]])

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        return make_validation(confusion)

    publish = make_publisher(storage, out, classes)
    assert search.train_next_trial(Leases(storage.engine), fit, lambda done: None, publish)
    write_study_note(search)
    assert list(rows(section(search, "Best trial"))) == list(classes.names)
    [shown] = api(storage, out, "studies/1")["trials"]
    assert {f"f1/{name}" for name in classes.names} < set(search.finished_trials()[SearchPlace(0)].user_attrs)
    table = list(csv.DictReader(io.StringIO(artifact(storage, out, 1, shown, "confusion.csv")[1].decode())))
    assert [(line["true_class"], line["predicted_class"], int(line["count"])) for line in table] == [
        (true, predicted, confusion[i, j])
        for i, true in enumerate(classes.names)
        for j, predicted in enumerate(classes.names)
    ]
    picture = artifact(storage, out, 1, shown, "confusion.png")[1]
    assert Image.open(io.BytesIO(picture)).size == (300, 284)


# --- the note ---


def test_the_note_describes_the_best_trial(storage: Storage, out: Path) -> None:
    search = run_search(storage, out, 9, scripted([0.5, 0.6, 0.9, "it broke", 0.7, 0.7, 0.7, 0.7, 0.8]))
    body = api(storage, out, "studies/1")["note"]["body"]
    assert body == note(search)
    assert "9 of 9 are finished: 8 complete, 1 failed." in body
    assert "- 1 failed: it broke\n" in body
    assert "held-out folds" in body
    chosen = search.choose().get()
    best = search.trial_store.study.trials[2]
    assert chosen.place == 2
    part = section(search, "Best trial")
    assert f"[Trial 2](/dashboard/studies/1/trials?numbers=2): macro F1 {best.values[0]:.3f}, with 12 epochs.\n" in part
    assert rows(part) == {name: [f"{best.user_attrs[f'f1/{name}']:.3f}"] for name in CLASSES.names}
    link = part.partition("![confusion matrix](")[2].partition(")")[0]
    shown = api(storage, out, "studies/1")["trials"][2]
    assert ask(storage, out, link) == artifact(storage, out, 1, shown, "confusion.png")
    parameters = rows(section(search, "Parameters"))
    assert list(parameters) == [parameter.name for parameter in STRATEGY.space]
    for parameter in STRATEGY.space:
        assert parameter.describe_range().replace("_", "\\_") in parameters[parameter.name][1]
        value = chosen.settings.get(parameter.name)
        shown_value = parameters[parameter.name][0].replace("\\", "")
        assert shown_value == ("–" if value is None else value if isinstance(value, str) else f"{value:.4g}")
    assert parameters["power"][1].endswith("(with scheme = inverse\\_power)")


def test_the_note_says_why_there_is_no_best_trial(storage: Storage, out: Path) -> None:
    search = run_search(storage, out, 2, FakeFit(lambda recipe: REASON))
    body = note(search)
    reason = r"loss is \<nan\> in epoch 3 \| \*odd\* \[text\](x) \`\_a\_\` \& more"
    assert f"2 of 2 are finished: 0 complete, 2 failed.\n\n- 2 failed: {reason}\n" in body
    assert f"There is no best trial: all 2 trials failed: {reason}." in body
    assert "## Best trial" not in body


def test_the_note_counts_interrupted_trials(storage: Storage, out: Path) -> None:
    def interrupted(recipe: Recipe) -> float:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(storage, out, 2, FakeFit(interrupted))
    search = run_search(storage, out, 2, FakeFit(quality))
    assert "2 of 2 are finished: 2 complete, 0 failed.\n\n2 more ended unfinished" in note(search)
    assert "[Trial 2](" in note(search)  # the dashboard's number, which counts interrupted trials too


def test_the_note_covers_only_the_trials_that_were_asked_for(storage: Storage, out: Path) -> None:
    fit = scripted([0.5, 0.6, 0.7, 0.9])
    run_search(storage, out, 4, fit)
    smaller = open_search(storage, 3)
    write_study_note(smaller)
    assert "3 of 3 are finished" in note(smaller)
    assert "[Trial 2](" in note(smaller)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": ()}, "."),
        ({"epochs": (12, 7)}, ", with 12 + 7 epochs."),
        ({"capped": True}, ", with 12 epochs (the most that are allowed)."),
        ({"notes": ("a_b", "c")}, ", with 12 epochs.\n\nNote: a\\_b; c."),
    ],
)
def test_the_note_says_how_long_the_best_trial_trained(
    changes: dict[str, object], text: str, storage: Storage, out: Path
) -> None:
    search = run_search(storage, out, 1, lambda recipe, on_epoch: make_validation(np.eye(8, dtype=int), **changes))
    assert f"macro F1 1.000{text}\n\n| class | F1 |" in section(search, "Best trial")


def test_the_note_says_when_all_settings_are_tried(storage: Storage, out: Path) -> None:
    control = {CONTROL: Recipe(monitor="val_macro_f1")}
    trial_store = open_trial_store(storage, "demo/temperature", FACTS)
    search = Search(trial_store, STRATEGIES["temperature"], RecipeContext((), control), 20, 0, CLASSES)
    while search.train_next_trial(Leases(storage.engine), FakeFit(quality), lambda done: None):
        pass
    write_study_note(search)
    assert "2 of 2 are finished: 2 complete, 0 failed. There are no more distinct settings; 20 trials" in note(search)


def test_a_note_is_not_rewritten_without_news_and_keeps_the_users_part(storage: Storage, out: Path) -> None:
    search = open_search(storage, 2)
    save_note(search.trial_store.study, "mine, before")
    run_search(storage, out, 1, FakeFit(quality))
    assert note(search).endswith(f"\n---\n\n{SEPARATOR}\n\nmine, before")
    save_note(search.trial_store.study, f"{note(search)}\n\n## Mine\n\nafter")
    before = api(storage, out, "studies/1")["note"]
    run_search(storage, out, 1, FakeFit(quality))
    assert api(storage, out, "studies/1")["note"] == before
    run_search(storage, out, 2, FakeFit(quality))
    assert note(search).endswith(f"\n---\n\n{SEPARATOR}\n\nmine, before\n\n## Mine\n\nafter")
    assert "2 of 2 are finished" in note(search)
    assert note(search).count(SEPARATOR) == 1


def test_importance_shows_the_effect_of_categorical_parameters(
    storage: Storage, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_unit(recipe: Recipe) -> float:
        # The second term gives the learning rate a peak, which Optuna's default evaluator would call important.
        weights: Any = recipe.class_weights
        return (0.9 if weights.unit == "sources" else 0.5) + 0.02 * quality(recipe)

    search = run_search(storage, out, 24, FakeFit(by_unit))
    part = section(search, "Importance of parameters")
    shares = {name: float(share) for name, [share] in rows(part).items()}
    assert set(shares) == {"scheme", "unit", "learning_rate", "weight_decay"}
    assert shares["unit"] > 0.8
    assert sum(shares.values()) == pytest.approx(1, abs=0.02)
    assert "Not covered: power (not part of every trial), one\\_minus\\_beta (not part of every trial)." in part
    before = note(search)
    monkeypatch.delattr("optuna.importance.get_param_importances")
    write_study_note(search)  # which computes nothing again
    assert note(search) == before


_FEW: dict[str, tuple[Any, ...]] = {
    "scheme": ("inverse_power", "effective_number"),
    "unit": ("landmarks", "sources"),
    "power": (0.5, 1.0),
    "one_minus_beta": (1e-3, 1e-2),
    "learning_rate": (1e-3, 5e-3),
    "weight_decay": (1e-2, 1e-1),
}


@given(data=st.data())
@settings(quick, max_examples=25)
def test_a_note_can_be_written_for_any_trials(data: st.DataObject) -> None:
    """Few trials, equal values, parameters that do not vary, ranges that an older version had."""
    storage: Any = optuna.storages.InMemoryStorage()
    count = data.draw(st.sampled_from((0, 1, 7, 8, 12)), "trials")
    search = open_search(storage, 12)
    varied = data.draw(st.sets(st.sampled_from(list(_FEW))), "varied")
    scores = data.draw(st.sampled_from(((0.5,), (0.5, 0.5 + 1e-12), (0.5, 0.6))), "values")
    old = data.draw(st.booleans(), "an older range")
    for place in range(count):
        picks = {name: data.draw(st.sampled_from(few if name in varied else few[:1])) for name, few in _FEW.items()}
        trial = optuna.trial.FixedTrial(picks)
        chosen = {p.name: p.suggest(trial) for p in STRATEGY.space if p.applies(picks)}
        distributions = dict(trial.distributions)
        if old and place == 3:
            distributions["learning_rate"] = optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)
        attributes: dict[str, Any] = {"place": place, "epochs": [3], "capped": False, "seconds": 1.0}
        attributes |= {f"f1/{name}": 0.5 for name in CLASSES.names}
        value = data.draw(st.sampled_from(scores))
        complete = create_trial(params=chosen, distributions=distributions, value=value, user_attrs=attributes)
        complete.number = place
        complete.system_attrs = {DIGEST: compute_digest(complete)}
        search.trial_store.study.add_trial(complete)
    write_study_note(search)
    part = section(search, "Importance of parameters")
    if count < 8:
        assert part.startswith("Left out: it takes at least 8 complete trials.")
    elif np.ptp([trial.values[0] for trial in search.trial_store.study.trials]) < 1e-4:
        assert part.startswith("Left out: all trials have the same value.")
    else:
        shown = rows(part)
        missing = part.partition("Not covered: ")[2].replace("\\", "")
        for name in _FEW:
            assert (name in shown) != (f"{name} (" in missing)
        assert not (old and "learning_rate" in shown)
        assert set(shown) <= varied


# --- the command ---


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["dashboard", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    return message.removeprefix("error: ")


def test_there_must_be_a_database(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = database_path(out)
    ending = ": run a study first, or give its place with --out or --storage.\n"
    with socket.create_server(("127.0.0.1", 0)) as busy:  # so that it can't start to serve
        arguments = ["--out", out, "--port", busy.getsockname()[1]]
        for more in ([], ["--storage", f"sqlite:///{path}"]):
            assert refused(capsys, *arguments, *more) == f"There is no database {path}{ending}"
    assert not out.exists()


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_out_of_range_is_refused(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--port", port) == f"--port is {port}: use a number from 1 to 65535.\n"


def test_a_port_in_use_is_refused(storage: Storage, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        message = f"Port {port} can't be used (Address already in use): choose another with --port.\n"
        assert refused(capsys, "--out", out, "--port", port) == message


def test_no_password_is_shown(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("postgresql://someone:hidden@127.0.0.1:1/studies", "postgresql://a:hidden@b@127.0.0.1/studies"):
        assert "hidden" not in refused(capsys, "--out", out, "--storage", address)


def test_it_serves_until_it_is_interrupted(storage: Storage, out: Path) -> None:
    run_search(storage, out, 1, FakeFit(quality))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hirise_imb.study", "dashboard", "--out", str(out), "--port", str(port)]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background lets them, and what they start, ignore interruptions.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        idle = _connected(port, server)
        with idle:  # as browsers do: it must keep nobody waiting
            [study] = json.loads(_get(port, "/api/studies"))["study_summaries"]
            assert study["study_name"] == "demo/class_weights"
            [trial] = json.loads(_get(port, "/api/studies/1"))["trials"]
            for entry in trial["artifacts"]:
                assert _get(port, f"/artifacts/1/{trial['trial_id']}/{entry['artifact_id']}")
            assert b"<html" in _get(port, "/dashboard")
            server.send_signal(signal.SIGINT)
            output, errors = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
    assert server.returncode == 0
    assert output == ""
    message = f"The dashboard of {database_path(out)} is at http://127.0.0.1:{port}/ until you press Ctrl-C.\n"
    assert errors[9:] == message  # after the time of day


def _connected(port: int, server: subprocess.Popen[str]) -> socket.socket:
    """Returns a connection as soon as the server accepts one."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            assert server.poll() is None, server.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return bytes(answer.read())
