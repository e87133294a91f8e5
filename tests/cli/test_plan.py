"""The command `plan`, and what `data check` says about the differences that tests can detect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition
from hirise_imb.data import HIRISE, manifest
from hirise_imb.pipeline.plan import DesignPlan, plan_study

MODULE = [sys.executable, "-m", "hirise_imb.study"]


def listing(*folders: Path) -> list[tuple[str, int]]:
    """Returns every file below some folders with the time of its last change."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted((str(path), path.stat().st_mtime_ns) for path in paths)


def rows(printed: str, title: str) -> dict[str, list[str]]:
    """Returns the cells of the table with this title, by the text of the first column."""
    lines = printed.split(title, 1)[1].splitlines()[3:]
    cells = []
    for line in lines:
        if line and not line.startswith(" ") and "  " not in line.rstrip():
            break  # the sentence below the table
        cells.append([cell for cell in line.strip().split("  ") if cell])
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells if row}


def plan(data: Path, **values: object) -> dict[str, DesignPlan]:
    """Returns the plan of a tiny study by design: 2 trials, 1 seed, 1 fit of each arm, 2 outer folds."""
    settings: dict[str, object] = {"trials": 2, "trial_seeds": 1, "refits": 1, "outer_folds": 2, "data": str(data)}
    study = plan_study(StudyDefinition(**{"strategies": ("focal_loss", "logit_adjustment"), **settings, **values}))  # type: ignore[arg-type]
    return {design.name: design for design in study.designs}


# --- fits ---


def test_fits_are_those_that_a_count_by_hand_gives(small_data: Path) -> None:
    designs = plan(small_data)
    # plain and focal_loss: 2 trials and the score of the arm in 4 folds, and 1 fit for the report; logit_adjustment
    # shares those of plain; the baseline as published and trained to the end: 4 folds and 1 fit each.
    assert designs["given-split"].fits == 2 * (3 * 4 + 1) + 2 * (4 + 1)
    assert designs["nested-cv"].fits == 2 * designs["given-split"].fits
    assert designs["nested-cv"].fine_tuning_fits == 0


def test_every_key_that_multiplies_fits_is_counted(small_data: Path) -> None:
    designs = plan(small_data, trials=3, trial_seeds=3, inner_seeds=2, refits=4, outer_folds=3, repeats=2)
    assert designs["given-split"].fits == 2 * (4 * 3 * 4 + 4) + 2 * (3 * 4 + 4)
    assert designs["nested-cv"].n_divisions == 3 * 2
    assert designs["nested-cv"].fits == 3 * 2 * (2 * (4 * 2 * 4 + 4) + 2 * (2 * 4 + 4))


def test_averaged_fits_are_counted_with_the_largest_number(small_data: Path) -> None:
    # undersampling averages 1 to 6 heads, and a control that averages as many is fitted once.
    fits = plan(small_data, strategies=("undersampling",))["given-split"].fits
    assert fits == (3 * 4 + 1) + 6 * (3 * 4 + 1) + 2 * (4 + 1) + 6 * (4 + 1)
    narrow = {"undersampling": {"members": 2}}
    fits = plan(small_data, strategies=("undersampling",), overrides=narrow)["given-split"].fits
    assert fits == (3 * 4 + 1) + 2 * (3 * 4 + 1) + 2 * (4 + 1) + 2 * (4 + 1)


def test_a_search_has_no_more_trials_than_distinct_settings(small_data: Path) -> None:
    # The ensemble has eight: heads of several kinds, or 2 to 8 members.
    few, many = (plan(small_data, strategies=("ensemble",), trials=trials)["given-split"].fits for trials in (8, 100))
    assert many - few == (100 - 8) * 4  # trials of plain alone


def test_fine_tuning_has_its_own_number_of_trials(small_data: Path) -> None:
    design = plan(small_data, strategies=("partial_unfreeze",), trials=5, fine_tuning_trials=2)["given-split"]
    assert design.fine_tuning_fits == 3 * 4 + 1
    assert design.fits == (6 * 4 + 1) + design.fine_tuning_fits + 2 * (4 + 1)


def test_time_and_disk_grow_with_the_study(small_data: Path) -> None:
    small, large = (plan(small_data, trials=trials) for trials in (2, 40))
    for name, design in small.items():
        assert design.seconds < large[name].seconds
        assert design.bytes < large[name].bytes
    tuned = plan(small_data, strategies=("partial_unfreeze",))["given-split"]
    assert tuned.seconds > small["given-split"].seconds
    assert small["nested-cv"].seconds > small["given-split"].seconds


def test_disk_for_features_is_that_of_every_view_and_cut(small_data: Path) -> None:
    table = manifest.read_manifest(small_data, HIRISE).table
    n_images, n_landmarks = len(table), table["landmark"].nunique()

    def planned(*strategies: str) -> tuple[int, int]:
        features = plan_study(StudyDefinition(data=str(small_data), strategies=strategies)).features
        return features.n_views, features.bytes

    assert planned("focal_loss") == (n_images, n_images * 1280 * 4)
    assert planned("photometric") == (2 * n_images, 2 * n_images * 1280 * 4)
    assert planned("tta") == (n_images + 7 * n_landmarks, (n_images + 7 * n_landmarks) * 1280 * 4)
    cuts = 8 * 8 * (320 + 192 + 192) * 2  # float16
    assert planned("partial_unfreeze") == (n_images, n_images * (1280 * 4 + cuts))
    # Eleven further views at the first cut.
    assert planned("augmentation") == (12 * n_images, n_images * (1280 * 4 + cuts + 11 * 8 * 8 * 320 * 2))


# --- output ---


def test_plan_prints_what_a_study_takes(
    small_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["--trials", "2", "--trial-seeds", "1", "--refits", "1", "--strategies", "focal_loss,logit_adjustment"]
    assert main(["plan", "--data", str(small_data), *words]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    table = rows(printed, "on 2 cores")
    assert table["given-split"][0] == str(2 * 13 + 2 * 5)
    assert table["nested-cv, 5 outer folds"][0] == str(5 * (2 * 13 + 2 * 5))
    assert table["in all"][0] == str(6 * (2 * 13 + 2 * 5))
    assert "Simulated on these counts, not measured" in printed
    assert "Extraction is included" in " ".join(printed.split())


@pytest.mark.parametrize("command", [["plan", "--data"], ["data", "check"]])
def test_sources_of_each_class_are_printed(
    command: list[str], small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(small_data)]) == 0
    printed = capsys.readouterr().out
    table = manifest.read_manifest(small_data, HIRISE).table
    sources = rows(printed, "Sources by class")
    for label, name in enumerate(HIRISE.classes):
        of_class = table[table["label"] == label]
        by_split = [of_class.loc[of_class["split"] == split, "source"].nunique() for split in ("train", "val", "test")]
        expected = [of_class["source"].nunique(), *by_split, of_class["landmark"].nunique()]
        assert sources[name] == list(map(str, expected))
    assert sources["any class"][0] == str(table["source"].nunique())
    detectable = rows(printed, "Minimum detectable difference of macro F1")
    assert set(detectable) == {"given-split", "nested-cv"}
    assert detectable["nested-cv"][0] == str(table["source"].nunique())
    assert detectable["given-split"][0] == str(table.loc[table["split"] == "test", "source"].nunique())
    assert float(detectable["nested-cv"][1]) < float(detectable["given-split"][1])


def test_only_the_designs_of_the_definition_are_planned(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = tmp_path / "mine.toml"
    definition.write_text(f'data = "{small_data}"\nevaluation = ["nested-cv"]\nouter_folds = 3\n')
    assert main(["plan", str(definition)]) == 0
    printed = capsys.readouterr().out
    assert "nested-cv, 3 outer folds" in printed
    assert "given-split" not in printed


def test_a_backbone_without_declared_shapes_says_what_is_left_out(
    small_data: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "--data", str(small_data), "--backbone", toy, "--strategies"]
    assert main([*arguments, "partial_unfreeze"]) == 0
    assert "leaves out late, early, whose shapes" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "focal_loss"]) == 0
    assert "leaves out" not in capsys.readouterr().out


# --- what it does not do ---


def test_plan_writes_nothing_and_does_not_load_tensorflow(small_data: Path, tmp_path: Path, cache: Path) -> None:
    script = (
        "import json, sys\nfrom hirise_imb.study import main\ncode = main(json.loads(sys.argv[1]))\n"
        "print(code, sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    words = ["plan", "--data", str(small_data), "--strategies", "partial_unfreeze,tta", "--out", str(tmp_path)]
    before = listing(tmp_path, cache, small_data)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(words)], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert listing(tmp_path, cache, small_data) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategies", "focal_los"], "There is no strategy 'focal_los': did you mean focal_loss?"),
        (["--trials", "0"], "trials is 0: use 1 or more."),
        (["--backbone", "resnet50"], "There is no backbone 'resnet50': did you mean resnet50v2?"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_can_not_be_run_can_not_be_planned(
    words: list[str], message: str, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--data", str(small_data), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert len(printed.err.splitlines()) == 1


def test_too_few_sources_for_the_outer_folds_are_refused(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = tmp_path / "mine.toml"
    definition.write_text(f'data = "{small_data}"\nouter_folds = 500\n')
    assert main(["plan", str(definition)]) == 2
    assert "too few for 500 outer folds" in capsys.readouterr().err
