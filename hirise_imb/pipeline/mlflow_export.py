"""Exports a report to MLflow: an experiment for the study, a run for the report, and inside it a run for each arm.

The run of a report is identified by the digest of its predictions and its definition. If it is exported again, an
unchanged report is skipped, and one that was rebuilt, with new scores or another page, updates its runs.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.metrics.registry import CLASS_METRICS
from hirise_imb.reporting.read import read_report, read_summary
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.report_files import lock_report
from hirise_imb.reporting.results import GIVEN_SPLIT_FOLDER, Results
from hirise_imb.reporting.summary.records import Summary
from hirise_imb.reporting.verdict import verdict
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RESULTS_TAG = "hirise_imb.results"
"""Tag of the run of a report: digest of its predictions and its definition."""
REPORT_TAG = "hirise_imb.report"
"""Tag of the run of a report: digest of its `summary.json`, which lists the digests of all files."""
ARM_TAG = "hirise_imb.arm"
"""Tag of the run of an arm: name of the arm."""

_PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"
_ARTIFACTS = (
    "report.html",
    "report.md",
    "summary.json",
    "per_class.csv",
    "selection.csv",
    "published.csv",
    "study.toml",
)
"""Files of a report that are stored with its run, if it has them."""
_SILENCE = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""Variable that keeps MLflow from printing two lines for each run."""
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Variables that limit the attempts to reach a server: by default, MLflow tries for minutes."""
_MOST_PARAMS = 100
"""Most parameters in one request."""
_LONGEST_VALUE, _LONGEST_NAME, _LONGEST_CAUSE = 500, 200, 300
"""Most characters of the value of a parameter, the name of a metric, and the cause in an error message."""


def check_mlflow(uri: str) -> None:
    """Checks that MLflow is installed and can be reached, so that a study fails before its work and not after it.

    Raises:
        UserError: it is not.
    """
    with _open_client(uri):
        pass


def export_report(folder: Path, uri: str) -> str:
    """Exports a report; returns the id of its run.

    Args:
        folder: folder of the report.
        uri: tracking URI of MLflow, such as `http://localhost:5000` or `sqlite:///mlflow.db`.

    Raises:
        UserError: MLflow is not installed, can't be reached or refuses, or there is no report in the folder that can be
            read. No message shows a password.
    """
    read_summary(folder)  # there must be a report before its folder can be locked
    # What is exported is one report, also while another process replaces it.
    with lock_report(folder):
        return _export(read_report(folder), read_summary(folder), folder, uri)


def _export(results: Results, summary: Summary, folder: Path, uri: str) -> str:
    report = hashlib.sha256((folder / "summary.json").read_bytes()).hexdigest()
    place = _redact(uri, uri)
    with _open_client(uri) as client:
        experiment = _find_experiment(client, summary["study"], place)
        identity = _digest_results(summary)
        runs = client.search_runs([experiment], f"tags.`{RESULTS_TAG}` = '{identity}'", max_results=1)
        if runs and runs[0].info.status == "FINISHED" and runs[0].data.tags.get(REPORT_TAG) == report:
            say(f"MLflow at {place} has this report already: nothing is exported again.")
            return str(runs[0].info.run_id)
        name = f"{summary['study']} ({summary['kind']})"
        run = _open_run(client, experiment, name, {RESULTS_TAG: identity}, runs[0] if runs else None)
        _export_arms(client, experiment, run, results)
        _describe_run(client, run, results)
        _store_files(client, run, folder)
        # Last, so that an export that was interrupted is not taken for a complete one.
        client.set_tag(run, REPORT_TAG, report)
        client.set_terminated(run)
    say(f"Exported to MLflow at {place}: experiment {summary['study']}, run {run}.")
    return run


@contextmanager
def _open_client(uri: str) -> Iterator[MlflowClient]:
    """Yields a client that has been answered once; turns errors of MLflow and its stores into errors for the user.

    Raises:
        UserError: MLflow is not installed, can't be reached or refuses.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UserError(
            "The export to MLflow needs the package mlflow: install it with `pip install 'hirise-imb[mlflow]'`."
        ) from error
    import requests
    import sqlalchemy.exc

    address, credentials = _split_credentials(uri)
    with _environment({**credentials, **_SILENCE}):
        try:
            with _environment({name: value for name, value in _FEW_RETRIES.items() if name not in os.environ}):
                client = MlflowClient(address, address)
                client.search_experiments(max_results=1)
        # Stores are of many kinds, and each raises errors of its own: of its driver, of the network or of the address.
        except Exception as error:
            raise _as_user_error(uri, error) from None
        try:
            yield client
        except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
            raise _as_user_error(uri, error) from None


def _as_user_error(uri: str, error: Exception) -> UserError:
    cause = _redact(uri, " ".join(str(error).split()) or type(error).__name__)
    return UserError(
        f"MLflow at {_redact(uri, uri)} can't be used ({cause[:_LONGEST_CAUSE]}): check the address, the password and "
        f"whether the server runs."
    )


def _split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """Returns the address of a server without user and password, and the variables in which MLflow takes them.

    MLflow itself prints and logs the address that it is given. Addresses of other kinds stay as they are.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri, {}
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri, {}
    values = {"USERNAME": unquote(parts.username), "PASSWORD": unquote(parts.password or "")}
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return address, {f"MLFLOW_TRACKING_{name}": value for name, value in values.items()}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables while the body runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _redact(uri: str, text: str) -> str:
    """Returns a text without the user, the password and the options in an address, which may be in any part of it."""
    address, _, options = uri.partition("?")
    # Everything up to the last @ may be a password, also in an address that is malformed.
    user = address.partition("://")[2].rpartition("@")[0]
    password = user.partition(":")[2]
    for secret in sorted({user, unquote(user), password, unquote(password), options}, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return text


def _find_experiment(client: MlflowClient, name: str, place: str) -> str:
    """Returns the id of the experiment of a study, which is created if there is none.

    Raises:
        UserError: it was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name))
    if experiment.lifecycle_stage != "active":
        raise UserError(f"The experiment {name} of MLflow at {place} was deleted: restore it, or delete it for good.")
    return str(experiment.experiment_id)


def _digest_results(summary: Summary) -> str:
    """Returns the digest of what was run and predicted, which neither times nor the looks of the page change."""
    digests = {name: digest for name, digest in summary["files"].items() if name.startswith("predictions/")}
    lines = [f"{name} {digest}" for name, digest in sorted(digests.items())]
    content = [summary["kind"], summary["files"]["study.toml"], *lines]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _open_run(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], earlier: Run | None) -> str:
    """Returns the id of a run at work: the earlier one, or a new one."""
    if earlier is None:
        return str(client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)
    run = str(earlier.info.run_id)
    client.update_run(run, status="RUNNING")
    for key, value in tags.items():
        client.set_tag(run, key, value)
    return run


def _export_arms(client: MlflowClient, experiment: str, run: str, results: Results) -> None:
    """Exports each arm to a run inside that of the report."""
    children = client.search_runs([experiment], f"tags.`{_PARENT_TAG}` = '{run}'")
    earlier = {child.data.tags.get(ARM_TAG): child for child in children}
    given = results.given_split
    for arm in results.ordered:
        tags = {_PARENT_TAG: run, ARM_TAG: arm.name, "role": arm.role, _NOTE_TAG: arm.summary}
        child = _open_run(client, experiment, arm.name, tags, earlier.get(arm.name))
        metrics = _describe_scores(results, arm)
        if given is not None and arm.name in (twins := {twin.name: twin for twin in given.arms}):
            scores = _describe_scores(given, twins[arm.name])
            metrics |= {f"given_split/{name}": value for name, value in scores.items()}
        _log(client, child, metrics, _describe_settings(arm))
        client.set_terminated(child)


def _store_files(client: MlflowClient, run: str, folder: Path) -> None:
    """Stores the main files of a report, and those of the given split inside it."""
    for place in (None, GIVEN_SPLIT_FOLDER):
        for name in _ARTIFACTS:
            path = folder / (place or "") / name
            if path.is_file():
                client.log_artifact(run, str(path), place)


def _log(client: MlflowClient, run: str, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
    from mlflow.entities import Metric, Param

    now = int(1000 * time.time())
    client.log_batch(run, [Metric(name, value, now, 0) for name, value in metrics.items()])
    entries = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entries), _MOST_PARAMS):
        client.log_batch(run, params=entries[start : start + _MOST_PARAMS])


def _describe_run(client: MlflowClient, run: str, results: Results) -> None:
    """Writes what the report says to its run."""
    answer = verdict(results)
    client.set_tag(run, _NOTE_TAG, f"{answer.headline} {answer.advice}\n\n{results.setting}")
    client.set_tag(run, "outcome", answer.outcome)
    client.set_tag(run, "design", results.terms.tested)
    counts = {"arms": len(results.arms), "landmarks": len(results.test), "sources": results.inference.total}
    _log(client, run, {name: float(count) for name, count in counts.items()}, {})


def _describe_scores(results: Results, arm: Arm) -> dict[str, float]:
    """Returns the finite scores of an arm under names that MLflow accepts.

    They are means over seeds; `vs_control/` and `vs_baseline/` are differences in macro F1 with their p values.
    """
    metrics: dict[str, float] = {name: spread.mean for name, spread in results.headline_scores(arm.name).items()}
    metrics["validation_macro_f1"] = arm.val_score
    metrics |= _name_ends("macro_f1", results.inference.resamples[arm.name].interval())
    metrics["seconds"] = arm.seconds
    for metric in CLASS_METRICS:
        spreads = zip(_class_keys(results), results.per_class(arm.name, metric), results.support, strict=True)
        metrics |= {f"{metric}/{key}": spread.mean for key, spread, support in spreads if support}
    for contrast in results.contrasts:
        other = results.other_of(arm, contrast)
        if other is None or other == arm.name:
            continue
        metrics[f"{contrast}/difference"] = results.main_gain(arm.name, other)
        metrics |= _name_ends(f"{contrast}/difference", results.inference.against(arm.name, other).interval)
        if (test := results.families[contrast].tests.get(arm.name)) is not None:
            metrics |= {f"{contrast}/p": test.swap.p, f"{contrast}/p_holm": test.p_holm}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _name_ends(name: str, interval: Interval | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _class_keys(results: Results) -> list[str]:
    """Returns a part of the name of a metric for each class; MLflow accepts few characters."""
    keys: list[str] = []
    for label, name in enumerate(results.classes):
        key = re.sub(r"[^\w\- ]+", "_", name)[:_LONGEST_NAME].strip()
        # Class names may differ only in characters that MLflow does not accept.
        keys.append(key if key and key not in keys else f"{key}_{label}")
    return keys


def _describe_settings(arm: Arm) -> dict[str, str]:
    """Returns the chosen hyperparameters of an arm, with the division before the name if there are several."""
    params: dict[str, Any] = {"seeds": " ".join(map(str, arm.seeds)), "divisions": len(arm.selections)}
    for selection in arm.selections:
        prefix = "" if len(arm.selections) == 1 else f"{selection.division.replace(',', '')}/"
        params |= {f"{prefix}{name}": value for name, value in selection.settings.items()}
    return {name: str(value)[:_LONGEST_VALUE] for name, value in params.items()}
