"""The command line: what it prints, what it refuses, and that a refusal is one sentence and leaves no half report."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
import urllib.parse
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import keras
import pytest
from builders import write_data
from optuna_dashboard import wsgi
from review_files import encode_noise
from worlds import change_split_file, storage

from hirise_imb.cli.main import main
from hirise_imb.cli.report_tables import MAX_LINES
from hirise_imb.data import DATASETS, manifest
from hirise_imb.data.dataset import SPLITS, ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.recipe import Recipe
from hirise_imb.search import lock_study
from hirise_imb.strategies import STRATEGIES
from hirise_imb.training.trainer import Run, Trainer
from hirise_imb.utils.errors import FitFailed

COMMANDS: tuple[list[str], ...] = (
    [],
    ["init"],
    ["run"],
    ["work"],
    ["plan"],
    ["strategies"],
    ["baseline"],
    ["compare"],
    ["report"],
    ["predict"],
    ["dashboard"],
    ["data"],
    ["data", "fetch"],
    ["data", "import"],
    ["data", "check"],
    ["data", "add"],
    ["review"],
    ["completion"],
)

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Run a command that must be refused: exit code 2, one sentence, no report. Return the sentence."""

    def call(*arguments: object, out: Path = tmp_path / "out") -> str:
        words = [str(argument) for argument in arguments]
        assert main([*words, *(["--out", str(out)] if words[0] in ("run", "dashboard") else [])]) == 2
        printed = capsys.readouterr()
        lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, printed.err
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert [path for path in out.glob("reports/**/*") if path.is_file()] == []
        return printed.err[printed.err.index("error: ") + 7 :]

    return call


# --- help ---


def test_every_command_explains_itself_without_heavy_packages() -> None:
    script = (
        "import contextlib, io, json, sys\n"
        "from hirise_imb.study import main\nseen = []\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    text = io.StringIO()\n"
        "    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):\n"
        "        main([*words, '--help'])\n"
        "    seen.append(text.getvalue())\n"
        "heavy = {'tensorflow', 'keras', 'optuna', 'pandas', 'matplotlib', 'sklearn', 'scipy'}\n"
        "print(json.dumps([seen, sorted(heavy & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(COMMANDS)], capture_output=True, text=True, check=True
    )
    texts, heavy = json.loads(done.stdout)
    assert heavy == []
    for words, text in zip(COMMANDS, texts, strict=True):
        assert text.startswith(" ".join(["usage: hirise-imb", *words]))
    assert all(words[0] in texts[0] for words in COMMANDS if words)
    for option in ("--name", "--data", "--backbone", "--weights", "--strategies", "--trials", "--refits", "--seed"):
        assert option in texts[COMMANDS.index(["run"])]
    assert "--rows" in texts[COMMANDS.index(["baseline"])]


def script() -> list[str]:
    """Returns the start of a command line that does what the installed console script does."""
    [entry] = [one for one in entry_points(group="console_scripts") if one.name == "hirise-imb"]
    module, _, function = entry.value.partition(":")
    return [sys.executable, "-c", f"import sys\nfrom {module} import {function}\nsys.exit({function}())"]


MODULE = [sys.executable, "-m", "hirise_imb.study"]


@pytest.mark.parametrize("words", [["--help"], ["data", "check", "--help"]])
def test_module_and_console_script_are_the_same(words: list[str]) -> None:
    answers = [subprocess.run([*command, *words], capture_output=True, text=True) for command in (MODULE, script())]
    assert [(done.returncode, done.stderr) for done in answers] == [(0, "")] * 2
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stdout.startswith(f"usage: {' '.join(['hirise-imb', *words[:-1]])} ")


def test_module_and_console_script_hand_on_the_exit_code(tmp_path: Path) -> None:
    words = ["run", "--strategies", "smoot", "--out", str(tmp_path)]
    for command in (MODULE, script()):
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: There is no strategy 'smoot': did you mean smote?")
        assert "Traceback" not in done.stderr


# --- data check ---


def test_data_check_prints_names_that_look_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[red]data"
    folder.mkdir()
    rows = [(f"{split}-{k}.jpg", name, split) for split in SPLITS for k, name in enumerate(("dust", "[bold]olivine"))]
    for seed, (file, *_) in enumerate(rows):
        (folder / file).write_bytes(encode_noise(seed))
    lines = ["file,label,split", *(",".join(row) for row in rows), ""]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["data", "check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("[bold]olivine") >= len(SPLITS)
    assert f"No mistakes in {folder}." in printed


def test_data_check_prints_classes_by_split(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(small_data)]) == 0
    printed = capsys.readouterr().out
    table = manifest.read_manifest(small_data, HIRISE).summary()
    for split in ("train", "val", "test"):
        assert split in [line.strip() for line in printed.splitlines()]
    for label in HIRISE.classes:
        rows = [line.strip("│ ").split("│") for line in printed.splitlines() if f"│ {label} " in line]
        found = [[int(cell) for cell in row[1:]] for row in rows]
        assert (
            found == table.loc[table["class"] == label, ["sources", "landmarks", "images", "rows"]].to_numpy().tolist()
        )
    assert printed.endswith(f"No mistakes in {small_data}. Run a study on it with --data {small_data}\n")


def test_data_check_names_the_classes_that_a_split_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("dust", "train"), ("hill", "train"), ("lake", "train"), ("dust", "val"), ("hill", "val"), ("dust", "test")]
    for seed in range(len(rows)):
        (tmp_path / f"{seed}.jpg").write_bytes(encode_noise(seed))
    lines = ["file,label,split", *(f"{seed}.jpg,{label},{split}" for seed, (label, split) in enumerate(rows)), ""]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["data", "check", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "No val landmark of: lake; macro F1 counts such a class as 0." in printed
    assert "No test landmark of: hill, lake; macro F1 counts such a class as 0." in printed
    assert "No train landmark" not in printed


def test_data_import_checks_a_folder(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(small_data)]) == 0
    assert capsys.readouterr().out.endswith(f"with --data {small_data}\n")


THREE_CLASSES = dataclasses.replace(HIRISE, name="three-classes", classes=ClassSet(("flat", "hill", "lake"), "flat"))


@pytest.mark.parametrize("action", ["check", "import"])
def test_the_data_set_of_landmarks_can_be_named(
    action: str, whole_sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, THREE_CLASSES.name, THREE_CLASSES)
    table = manifest.read_manifest(whole_sample, HIRISE).table.drop_duplicates(["split", "label"])
    table = table[table["label"] < 3]
    names: list[str] = table["image"].tolist()
    pictures = {
        f"{image} {label} {split}": image
        for image, label, split in zip(names, table["label"], table["split"], strict=True)
    }
    folder = write_data(tmp_path / "three", pictures, spec=THREE_CLASSES)
    for image in pictures.values():
        shutil.copyfile(*(place / HIRISE.layout.image_folder / image for place in (whole_sample, folder)))
    assert main(["data", action, str(folder), "--dataset", THREE_CLASSES.name]) == 0
    printed = capsys.readouterr().out
    for name in THREE_CLASSES.classes:
        assert printed.count(f"│ {name} ") == 3
    assert "crater" not in printed
    assert main(["data", action, str(folder)]) == 2  # they are no HiRISE landmarks
    assert "crater" in capsys.readouterr().err


def test_an_unknown_data_set_is_refused(refused: Refused, small_data: Path) -> None:
    message = "There is no data set 'hirise-v3': did you mean hirise-v3_2? Known: hirise-v3_2.\n"
    assert refused("data", "check", small_data, "--dataset", "hirise-v3") == message
    assert refused("data", "import", small_data, "--dataset", "hirise-v3") == message
    assert refused("run", "--data", small_data, "--dataset", "hirise-v3") == message


# --- refusals ---


def test_unknown_names_are_refused_with_the_known_ones(refused: Refused) -> None:
    assert refused("run", "--strategies", "focal_los,class_weights") == (
        f"There is no strategy 'focal_los': did you mean focal_loss? Known: {', '.join(STRATEGIES)}.\n"
    )
    assert refused("run", "--backbone", "resnet50").startswith(
        "There is no backbone 'resnet50': did you mean resnet50v2?"
    )


def test_values_out_of_range_are_refused(refused: Refused) -> None:
    assert refused("run", "--trials", "0") == "trials is 0: use 1 or more.\n"
    assert "can't name a folder" in refused("run", "--name", "../up")
    assert "contains a name twice" in refused("run", "--strategies", "focal_loss,focal_loss")


def test_definitions_with_mistakes_are_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert refused("run", path).startswith(f"There is no study definition {path}")
    for text, message in (
        ("trails = 3", "There is no key 'trails': did you mean trials?"),
        ("trials = ", "mine.toml is not valid TOML"),
        ("trials = 'three'", 'trials is "three": it must be an integer'),
    ):
        path.write_text(text)
        assert message in refused("run", path)


def test_data_that_is_not_there_is_refused(refused: Refused, tmp_path: Path) -> None:
    for arguments in (["run", "--data"], ["data", "check"], ["data", "import"]):
        assert "nowhere does not exist" in refused(*arguments, tmp_path / "nowhere")
    assert "The HiRISE archive is not in" in refused("run", "--data", "hirise")
    assert "environment variable NO_SUCH is not set" in refused("run", "--data", "$NO_SUCH")


def test_a_broken_split_file_is_refused(refused: Refused, own_data: Path) -> None:
    change_split_file(own_data, " train", " trian")
    for arguments in (["run", "--data"], ["data", "check"]):
        assert "unknown set name 'trian'" in refused(*arguments, own_data)


def test_a_source_in_two_splits_is_refused(refused: Refused, own_data: Path) -> None:
    table = manifest.read_manifest(own_data, HIRISE).table
    source = table.loc[table["split"] == "train"].drop_duplicates("landmark")["source"].mode()[0]
    image = table.loc[table["source"] == source, "image"].iloc[-1]
    text = (own_data / HIRISE.layout.split_file).read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"{image} "))
    change_split_file(own_data, line, line.replace(" train", " test"))
    assert source in refused("run", "--data", own_data)


def test_a_truncated_image_is_refused(refused: Refused, own_data: Path, toy: str) -> None:
    path = sorted((own_data / HIRISE.layout.image_folder).iterdir())[-1]
    path.write_bytes(path.read_bytes()[:2000])
    message = refused("run", "--data", own_data, "--backbone", toy, "--weights", "random")
    assert message.startswith(f"{path} is not a complete JPEG or PNG image")


@pytest.mark.parametrize("blocked", ["out", "out/reports", "out/studies", "out/studies/data.runs"])
def test_a_file_where_a_folder_should_be_is_refused(
    blocked: str, refused: Refused, small_data: Path, toy: str, tmp_path: Path
) -> None:
    path = tmp_path / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    message = refused("run", "--data", small_data, "--backbone", toy, "--weights", "random")
    assert message.startswith(f"{tmp_path / 'out'}")
    assert "can't be written to" in message
    assert path.read_text() == "mine"


def test_weights_that_can_not_be_had_are_refused(
    refused: Refused, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise Exception("URL fetch failure: name resolution")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    message = refused("run", "--data", small_data, "--backbone", "resnet50v2")
    assert message.startswith("The ImageNet weights of resnet50v2 can't be downloaded: fetch https://")
    assert "--weights" in message
    assert "--backbone efficientnet-lite0, which needs no download" in message
    arguments = ["run", "--data", small_data, "--backbone", "resnet50v2", "--weights"]
    assert "There is no weights file" in refused(*arguments, tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"bad")
    assert "does not contain ResNet50V2 weights" in refused(*arguments, tmp_path / "bad.h5")


def test_a_study_that_runs_already_is_refused(refused: Refused, small_data: Path, toy: str, tmp_path: Path) -> None:
    arguments = ["run", "--data", small_data, "--backbone", toy, "--weights", "random"]
    with lock_study(tmp_path / "out" / "studies" / "data"):  # the name that the data gives the study
        assert "is in use by another run" in refused(*arguments)


@pytest.mark.parametrize("command", ["run", "work"])
def test_a_wrong_address_is_told_before_any_feature_is_computed(
    command: str, small_data: Path, toy: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, "--data", str(small_data), "--backbone", toy, "--weights", "random", "--out", str(tmp_path)]
    assert main([*words, "--storage", "redis://somewhere"]) == 2
    assert "A database of the kind redis is not supported" in capsys.readouterr().err
    assert not list(cache.glob("features/*"))


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_is_none_is_refused(port: int, refused: Refused) -> None:
    assert refused("dashboard", "--port", port) == f"--port is {port}: use a number from 1 to 65535.\n"


def test_broken_images_are_found_before_a_study(refused: Refused, own_data: Path) -> None:
    images = sorted((own_data / HIRISE.layout.image_folder).iterdir())
    images[3].write_text("hello")
    images[5].write_bytes(images[5].read_bytes()[:3000])
    message = refused("data", "check", own_data)
    assert message.startswith(f"2 of {len(images)} images can't be used:\n")
    assert (
        f"{images[3]} is not a complete JPEG or PNG image (cannot identify image file): import the data again."
        in message
    )
    assert str(images[5]) in message


def test_a_disk_that_runs_full_is_the_users_error(
    refused: Refused, small_data: Path, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.bin")

    monkeypatch.setattr("hirise_imb.features.cache.FeatureStore.append", full)
    arguments = ["run", "--data", small_data, "--backbone", toy, "--weights", "random"]
    assert refused(*arguments) == "rows.bin: No space left on device; fix that and run the command again.\n"


def test_a_baseline_that_can_not_be_fitted_says_why(
    refused: Refused, small_data: Path, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer, recipe: Recipe, seed: int) -> Run:
        raise FitFailed("val_loss became inf in epoch 3")

    monkeypatch.setattr(Trainer, "fit_reference", fail)
    assert refused("run", "--data", small_data, "--backbone", toy, "--weights", "random") == (
        "The baseline can't be fitted (with seed 0: val_loss became inf in epoch 3): check the weights and the "
        "images, or the table of features.\n"
    )


def test_an_interruption_says_how_to_continue(
    small_data: Path, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hirise_imb.features.extraction.decode_image", interrupted)
    arguments = ["run", "--data", str(small_data), "--backbone", toy, "--weights", "random", "--out", str(tmp_path)]
    assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted: finished features, trials and fits are saved; the same command continues from there."
    )


# --- a whole run, and the dashboard ---


def ask(database: Path, path: str) -> dict[str, object]:
    """What the dashboard answers to a GET request."""
    with storage(database) as store:
        status: list[str] = []
        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": urllib.parse.unquote(path),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8080",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
        }
        body = b"".join(wsgi(store)(environment, lambda line, headers, *rest: status.append(line)))
    assert status == ["200 OK"]
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("undrawn")
def test_a_run_ends_with_its_report_and_the_dashboard_shows_it(
    small_data: Path, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no name is broken into two lines
    definition = tmp_path / "mine.toml"
    definition.write_text(
        f'name = "mine"\ndata = "{small_data}"\nbackbone = "{toy}"\nweights = "random"\ntrials = 5\nrefits = 1\n'
        'strategies = ["focal_loss", "logit_adjustment"]\nevaluation = ["given-split"]\n'
    )
    out = tmp_path / "out"
    assert main(["run", str(definition), "--trials", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    report = out / "reports" / "mine"
    assert printed.endswith(f"Report: {report / 'report.html'}\n")
    searched = {"plain", "focal_loss", "logit_adjustment"}
    for name in ("baseline", "plain"):
        assert f"\n{name} " in printed
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert {"baseline", *searched} < {arm["name"] for arm in summary["arms"]}
    assert len(printed.splitlines()) <= MAX_LINES
    assert tomllib.loads((report / "study.toml").read_text())["trials"] == 1  # the option, not the file
    database = out / "studies" / "studies.db"
    studies = ask(database, "/api/studies")["study_summaries"]
    assert isinstance(studies, list)
    # After the control's recipe, whose digest the names of those that start from it have.
    names = {study["study_name"].split(" after ")[0]: study["study_id"] for study in studies}
    assert set(names) == {f"mine/{name}" for name in searched}
    detail = ask(database, f"/api/studies/{names['mine/focal_loss']}")
    trials = detail["trials"]
    assert isinstance(trials, list)
    assert [trial["state"] for trial in trials] == ["Complete"]
    assert {attribute["key"] for attribute in trials[0]["user_attrs"]} >= {"epochs", "f1/spider", "recipe"}


def test_the_dashboard_needs_a_study(refused: Refused, tmp_path: Path) -> None:
    database = tmp_path / "out" / "studies" / "studies.db"
    assert refused("dashboard").startswith(f"There is no database {database}: run a study")
    assert not database.exists()
