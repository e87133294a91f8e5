"""The export of a report to a real MLflow store: what it has then, and what a second export changes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from handmade import (
    SEEDS,
    guesses,
    make_arm,
    make_catalogue,
    make_nested_results,
    make_results,
    summary_of,
    three_classes,
)

import hirise_imb as hi
from hirise_imb.cli.main import main
from hirise_imb.data.dataset import ClassSet
from hirise_imb.pipeline.mlflow_export import (
    ARM_TAG,
    REPORT_TAG,
    RESULTS_TAG,
    _open_client,
    check_mlflow,
    export_report,
)
from hirise_imb.reporting import Results, write_report
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    # MLflow uses what its own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

EVERY = (60, 24, 12, 10, 8, 6, 8, 6)
RIGHT = {"baseline": 0.3, "plain": 0.55, "class_weights": 0.9}


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """MLflow sends no statistics about its use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="module")
def needs_mlflow(offline: None) -> None:
    pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of a nested cross-validation with the given split inside."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("data"), EVERY)
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [make_arm(catalogue, name, [guesses(truth, share, seed) for seed in SEEDS]) for name, share in RIGHT.items()]
    given = replace(make_results(catalogue, *arms), environment={"seconds": {arm.name: arm.seconds for arm in arms}})
    return make_nested_results(catalogue, RIGHT, given_split=given)


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report. Not to be changed."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


@pytest.fixture(scope="module")
def empty_store(needs_mlflow: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables. Not to be changed: creating them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    check_mlflow(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty database; artifacts are stored in the working folder."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


def client_of(store: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(store, store)


def list_runs(store: str, experiment: str = "by-hand") -> list[Run]:
    client = client_of(store)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def find_children(store: str, parent: str) -> dict[str, Run]:
    runs = (run for run in list_runs(store) if run.data.tags.get("mlflow.parentRunId") == parent)
    return {run.data.tags[ARM_TAG]: run for run in runs}


def list_artifacts(store: str, run: str, place: str | None = None) -> set[str]:
    return {Path(entry.path).name for entry in client_of(store).list_artifacts(run, place)}


def check_scores(metrics: dict[str, float], arm: dict[str, Any], classes: list[str], prefix: str = "") -> None:
    """See that the metrics of a run are the figures of an arm in a summary."""
    for name, spread in arm["scores"].items():
        assert metrics[prefix + name] == spread["mean"]
    for metric, spreads in arm["per_class"].items():
        for name, spread in zip(classes, spreads, strict=True):
            assert metrics[f"{prefix}{metric}/{name}"] == spread["mean"]
    assert metrics[f"{prefix}validation_macro_f1"] == arm["val_score"]
    for contrast in ("vs_control", "vs_baseline"):
        if (test := arm[contrast]["test"]) is not None:
            assert metrics[f"{prefix}{contrast}/difference"] == arm[contrast]["scores"]["macro_f1"]
            assert metrics[f"{prefix}{contrast}/difference_low"] == arm[contrast]["interval"]["low"]
            assert metrics[f"{prefix}{contrast}/p_holm"] == test["p_holm"]


def test_a_report_becomes_a_run_with_a_run_for_each_arm(results: Results, folder: Path, store: str) -> None:
    run = export_report(folder, store)
    parent, summary = client_of(store).get_run(run), summary_of(folder)
    given = summary_of(folder / "given-split")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["outcome"] == summary["verdict"]["outcome"]
    assert summary["verdict"]["headline"] in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["landmarks"] == len(results.test)
    assert {"report.html", "summary.json", "per_class.csv", "study.toml", "given-split"} <= list_artifacts(store, run)
    assert {"report.html", "summary.json"} <= list_artifacts(store, run, "given-split")
    children = find_children(store, run)
    assert list(children) != []
    assert set(children) == set(RIGHT)
    for arm, twin in zip(summary["arms"], given["arms"], strict=True):
        child = children[arm["name"]]
        assert child.info.status == "FINISHED"
        assert (child.info.run_name, child.data.tags["role"]) == (arm["name"], arm["role"])
        check_scores(child.data.metrics, arm, summary["classes"])
        check_scores(child.data.metrics, twin, summary["classes"], "given_split/")
        for selection in arm["selections"]:
            for name, value in selection["settings"].items():
                assert child.data.params[f"{selection['division']}/{name}"] == str(value)
    assert len(list_runs(store)) == 1 + len(RIGHT)


def test_an_unchanged_report_is_skipped(
    results: Results, folder: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = export_report(folder, store)
    before = {one.info.run_id: one.info.end_time for one in list_runs(store)}
    with caplog.at_level("INFO", "hirise_imb"):
        assert export_report(folder, store) == run
    assert "nothing is exported again" in caplog.text
    assert {one.info.run_id: one.info.end_time for one in list_runs(store)} == before


def test_a_rebuilt_report_updates_its_runs(results: Results, folder: Path, store: str, tmp_path: Path) -> None:
    run = export_report(folder, store)
    rebuilt = Path(shutil.copytree(folder, tmp_path / "rebuilt"))
    summary = summary_of(rebuilt)
    summary["setting"] = "other words"
    (rebuilt / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    before = client_of(store).get_run(run).data.tags
    assert export_report(rebuilt, store) == run
    after = client_of(store).get_run(run).data.tags
    assert after[RESULTS_TAG] == before[RESULTS_TAG]
    assert after[REPORT_TAG] != before[REPORT_TAG]
    assert len(list_runs(store)) == 1 + len(RIGHT)
    path = client_of(store).download_artifacts(run, "summary.json", str(tmp_path))
    assert json.loads(Path(path).read_text(encoding="utf-8"))["setting"] == "other words"


def test_an_interrupted_export_is_completed(
    results: Results, folder: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hirise_imb.pipeline.mlflow_export._describe_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_report(folder, store)
    assert all(REPORT_TAG not in run.data.tags for run in list_runs(store))
    run = export_report(folder, store)
    assert client_of(store).get_run(run).info.status == "FINISHED"
    assert len(list_runs(store)) == 1 + len(RIGHT)


def test_other_results_get_runs_of_their_own(results: Results, folder: Path, store: str, tmp_path: Path) -> None:
    first = export_report(folder, store)
    fewer = replace(results, arms=results.arms[:2], given_split=None)
    other = export_report(write_report(fewer, tmp_path / "fewer").parent, store)
    assert other != first
    assert set(find_children(store, other)) == {"baseline", "plain"}
    assert set(find_children(store, first)) == set(RIGHT)


def test_class_names_become_names_that_mlflow_accepts(store: str, tmp_path: Path) -> None:
    results = three_classes()
    names = ("a/b (c)", "a_b _c_", "..")
    results = replace(
        results,
        classes=ClassSet(names),
        data=results.data.assign(**{"class": np.resize(np.array(names), len(results.data))}),
    )
    run = export_report(write_report(results, tmp_path / "names").parent, store)
    client = client_of(store)
    runs = client.search_runs([client.get_run(run).info.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'")
    keys = {name.removeprefix("f1/") for name in runs[0].data.metrics if name.startswith("f1/")}
    assert keys == {"a_b _c_", "a_b _c__1", "_"}


def test_a_deleted_experiment_is_an_error(results: Results, folder: Path, store: str) -> None:
    client = client_of(store)
    client.delete_experiment(client.create_experiment("by-hand"))
    with pytest.raises(UserError, match=r"experiment by-hand of MLflow at sqlite:.* was deleted: restore it"):
        export_report(folder, store)


@pytest.mark.parametrize(
    "address",
    [
        "http://somebody:s3cret@127.0.0.1:9/mlflow",
        "http://somebody:s3%63ret%40x@127.0.0.1:9",
        "http://somebody:s3c/re@t@127.0.0.1:9/x?token=s3cret",
        "nonsense://somebody:s3cret@host",
    ],
)
def test_a_store_that_cannot_be_reached_is_an_error_without_the_password(needs_mlflow: None, address: str) -> None:
    with pytest.raises(UserError, match="can't be used") as caught:
        check_mlflow(address)
    message = str(caught.value)
    assert "***@" in message
    assert not [secret for secret in ("somebody", "s3c", "s3%63ret", "re@t") if secret in message]
    assert caught.value.__cause__ is None


def test_the_password_of_a_server_reaches_it_and_nothing_else(
    needs_mlflow: None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    variables = dict(os.environ)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with _open_client(f"http://somebody:s3%63ret@127.0.0.1:{server.server_port}/") as client:
            # MLflow prints the address that it is given.
            assert "@" not in client.tracking_uri
        server.shutdown()
    assert requests == [f"Basic {base64.b64encode(b'somebody:s3cret').decode()}"]
    assert dict(os.environ) == variables
    assert "s3cret" not in str(capfd.readouterr()) + caplog.text


def test_the_command_exports_what_it_rebuilt(folder: Path, store: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "by-hand"))
    assert main(["report", str(copy), "--mlflow", store]) == 0
    assert len(list_runs(store)) == 1 + len(RIGHT)


@pytest.mark.usefixtures("few_epochs", "toy")
def test_a_run_ends_with_the_export(small_data: Path, store: str, tmp_path: Path) -> None:
    options = f"--name tiny --data {small_data} --backbone toy --weights random --strategies prototypes --trials 1"
    options += f" --evaluation given-split --trial-seeds 1 --refits 1 --out {tmp_path} --mlflow {store}"
    assert main(["run", *options.split()]) == 0
    names = {run.data.tags.get(ARM_TAG) for run in list_runs(store, "tiny")}
    assert names == {None, "baseline", "baseline_to_the_end", "plain", "prototypes"}


@pytest.mark.parametrize("command", [["run"], ["report", "some-report"]])
def test_without_mlflow_a_command_says_what_to_install_and_does_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--mlflow", "http://localhost:5000"]) == 2
    assert "pip install 'hirise-imb[mlflow]'" in capsys.readouterr().err
    with pytest.raises(UserError, match="needs the package mlflow"):
        hi.run(mlflow="http://localhost:5000")
    assert list(tmp_path.iterdir()) == []
