"""Reports whose files were edited by someone who also corrects the digests, or replaced while they are read."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from handmade import guesses, make_arm, make_catalogue, make_nested_results, make_results, without_figures
from report_edits import replace_file

from hirise_imb.api.report import compare_reports, read_report
from hirise_imb.data.manifest import Manifest
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.read import read_report as read_results
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import log
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import call

_RIGHT = {"baseline": 0.4, "plain": 0.6, "focal_loss": 0.7}
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 2**63, 10**5000, 0.5, 1.5, -0.25, 1e308, "", "x", "plain", "../../x", "a\x1b[31mb\r"),
    *("\ud800", "=1+1", "[red]", "<b>", "fold 1", [], {}, [[]], ["x"], [0], {"x": 1}, 9 * [1]),
)
"""Values that replace others."""


def _make_given(catalogue: Manifest, right: float) -> Results:
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [
        make_arm(catalogue, name, [guesses(truth, share * right, seed) for seed in (1, 2)])
        for name, share in _RIGHT.items()
    ]
    return make_results(catalogue, *arms)


def _write_reports(folder: Path) -> None:
    """Writes two reports of the given split on the same landmarks, and a nested one with a given split inside it."""
    catalogue = make_catalogue(folder / "data", (12, 8, 4, 3, 2, 2, 3, 0))
    one, other = _make_given(catalogue, 1.0), replace(_make_given(catalogue, 0.7), setting="Another setting.")
    nested = make_nested_results(catalogue, {name: 0.7 * share for name, share in _RIGHT.items()}, given_split=one)
    with without_figures():
        for name, results in {"one": one, "other": other, "nested": nested}.items():
            write_report(results, folder / name)


def _replace_until(stop: Path, reports: Path, place: Path, settings: tuple[str, str]) -> None:
    """Writes two reports into the same folder in turn until a file exists."""
    log.setLevel("ERROR")
    both = [read_results(reports / name) for name in settings]
    with without_figures():
        while not stop.exists():
            for results in both:
                write_report(results, place)


@attack(Area.CONCURRENCY, "A report replaced again and again while others read, compare and rebuild it", tries=4)
def replace_report(attempt: Attempt) -> Outcome:
    reports = attempt.prepare("hand-made-reports", _write_reports)
    place, stop = attempt.folder / "report", attempt.folder / "stop"
    states = [_describe_state(read_results(reports / name)) for name in ("one", "other")]
    shutil.copytree(reports / "one", place)
    arguments = (stop, reports, place, ("one", "other"))
    writer = multiprocessing.get_context("spawn").Process(target=_replace_until, args=arguments)
    writer.start()
    try:
        for _ in range(8):
            time.sleep(attempt.random.uniform(0, 0.5))
            assert _describe_state(read_results(place)) in states
            with without_figures():
                if attempt.random.random() < 0.5:
                    call("report", place).expect_success()
                else:
                    compared = call("compare", place, reports / "one", "--name", "c", "--out", attempt.folder)
                    compared.expect_success()
        assert writer.is_alive()
    finally:
        stop.touch()
        writer.join()
    assert writer.exitcode == 0
    assert _describe_state(read_results(place)) in states
    return Outcome.CORRECT


def _describe_state(results: Results) -> tuple[object, ...]:
    """Returns what tells two reports apart: what their summary says, and their predictions."""
    arms = [(arm.name, [fit.probabilities.tobytes() for fit in arm.predictions]) for arm in results.arms]
    return results.setting, results.study_toml, repr(arms)


@attack(Area.DISK, "Content of a report edited, its digests corrected; then `report`, `compare` and the API", tries=60)
def edit_report(attempt: Attempt) -> Outcome:
    reports = attempt.prepare("hand-made-reports", _write_reports)
    was_refused = False
    for number in range(6):
        folder = attempt.folder / str(number)
        name = attempt.random.choice(["one", "nested"])
        shutil.copytree(reports / name, folder)
        place = folder / "given-split" if name == "nested" and attempt.random.random() < 0.3 else folder
        _edit(place, attempt.random)
        was_refused |= _expect_readers_hold(folder, reports / ("nested" if name == "nested" else "other"))
        shutil.rmtree(folder)
    return Outcome.REFUSED if was_refused else Outcome.CORRECT


def _edit(folder: Path, choices: random.Random) -> None:
    """Changes a file of a report, and the digests in its summary so that they match."""
    kind = choices.choice(["summary"] * 4 + ["environment.json", "predictions", "study.toml", "curves"])
    if kind == "summary":
        path = folder / "summary.json"
        text = _mutate_json(json.loads(path.read_text(encoding="utf-8")), choices)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    else:
        pattern = {"predictions": "predictions/*.parquet", "curves": "figures/curves-*.csv"}.get(kind, kind)
        target = choices.choice(sorted(folder.glob(pattern)))
        _mutate_file(target, choices)
        replace_file(folder, target.relative_to(folder).as_posix(), target.read_bytes())


def _mutate_json(value: Any, choices: random.Random) -> str:  # noqa: ANN401
    """Returns a document in which a random value is another, is missing or occurs twice, or a damaged document."""
    if choices.random() < 0.1:
        text = json.dumps(value)
        return choices.choice(
            [
                *(text[: len(text) // 2], "[" * 100_000, "", "null", "\ufeff" + text, text.replace("1", "1" * 5000, 1)),
                *(
                    text.replace("{", '{"study": "x", ', 1),
                    text.replace("0.", "1e999, ", 1),
                    text.replace("0.5", "NaN"),
                ),
            ]
        )
    parent: Any = value
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = choices.choice(keys)
        child = parent[key]
        if not isinstance(child, dict | list) or not child or choices.random() < 0.1:
            break
        parent = child
    match choices.randrange(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.append(child)
        case 2 if isinstance(parent, list):
            choices.shuffle(parent)
        case 3 if type(child) in (int, float):
            parent[key] = child * choices.choice([-1, 0.5, 2, 1.01])
        case 4 if isinstance(child, str):
            parent[key] = choices.choice([child + "\n", child + "\x1b[2J", child[1:], child.upper()])
        case _:
            parent[key] = choices.choice(_VALUES)
    with np.errstate(all="ignore"):
        return _dump(value)


def _dump(value: Any) -> str:  # noqa: ANN401
    """Returns JSON, which may have integers of thousands of digits."""
    huge = 10**5000
    text = json.dumps(_replace(value, huge, "HUGE"))
    return text.replace('"HUGE"', "1" + "0" * 5000)


def _replace(value: Any, old: int, new: str) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _replace(entry, old, new) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replace(entry, old, new) for entry in value]
    return new if type(value) is int and value == old else value


def _mutate_file(path: Path, choices: random.Random) -> None:
    """Changes a file other than the summary."""
    if path.suffix == ".json" and choices.random() < 0.8:
        text = _mutate_json(json.loads(path.read_bytes()), choices)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    elif path.suffix == ".parquet" and choices.random() < 0.9:
        _mutate_predictions(path, choices)
    elif path.suffix == ".csv" and choices.random() < 0.7:
        table: Any = pd.read_csv(path).astype(object)
        column = choices.choice(list(table))
        if choices.random() < 0.3:
            table = table.drop(columns=column)
        else:
            table.loc[choices.randrange(len(table)), column] = choices.choice(["x", -1, np.nan, np.inf, 1e400, ""])
        table.to_csv(path, index=False)
    else:
        content = bytearray(path.read_bytes())
        for _ in range(choices.choice([1, 1, 20])):
            content[choices.randrange(len(content))] = choices.randrange(256)
        if choices.random() < 0.3:
            del content[choices.randrange(len(content)) :]
        path.write_bytes(choices.choice([bytes(content), bytes(content), b"x = " + b"[" * 50_000, b"\xff\xfe", b""]))


def _mutate_predictions(path: Path, choices: random.Random) -> None:
    table: Any = pd.read_parquet(path)
    row, column = choices.randrange(len(table)), choices.choice(list(table))
    probabilities = [name for name in table if name.startswith("p_")]
    match choices.randrange(8):
        case 0:
            table = table.astype({probabilities[0]: float})
            table.loc[row, probabilities[0]] = choices.choice([2.0, -1.0, np.nan, np.inf, 0.7])
        case 1:
            table.loc[row, choices.choice(["true_class", "predicted_class"])] = choices.choice(["", "x", "crater"])
        case 2:
            name = choices.choice(["image", "landmark", "source"])
            table.loc[row, name] = choices.choice([table.loc[0, name], "\x1b[2J", "", "../x", None])
        case 3:
            table = table.drop(index=row)
        case 4:
            table = pd.concat([table, table.loc[[row]]])
        case 5:
            table = table.drop(columns=column) if choices.random() < 0.5 else table.rename(columns={column: "x"})
        case 6:
            table[column] = choices.choice([0, "x", None, 0.5])
        case 7:
            table.loc[row, "seed"] = choices.choice([-1, 99, 4])
    table.to_parquet(path, index=choices.random() < 0.1)


def _expect_readers_hold(folder: Path, other: Path) -> bool:
    """Fails unless each reader refuses in a sentence or succeeds; returns whether one refused."""
    refused = []
    with without_figures():
        try:
            report = read_report(folder)
            repr(report), report._repr_html_(), report.scores.frame(), report.predictions(report.baseline)
            _ = report.definition, report.verdict, report.per_class.frame(), report.trials.frame()
        except UserError as error:
            _expect_line(error)
            refused.append(error)
        try:
            compare_reports([folder, other], name="c")
        except UserError as error:
            _expect_line(error)
        for words in (("report", folder), ("compare", folder, other, "--name", "c", "--out", folder.parent / "out")):
            result = call(*words)
            if result.code:
                result.expect_sentence()
            else:
                result.expect_success()
                assert not refused or words[0] == "compare", f"read_report refuses what report reads: {refused}"
    return bool(refused)


def _expect_line(error: UserError) -> None:
    """Fails unless a message is one sentence on one line, without what moves a cursor."""
    text = str(error)
    assert len(text) < 2000, text
    assert "\n" not in text, text
