"""A strategy with two parameters, added in this one file: it is checked, listed, searched and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from hirise_imb.cli import main
from hirise_imb.config import Override, Range, StudyDefinition, load_definition
from hirise_imb.data.hirise import HIRISE
from hirise_imb.pipeline.runner import run_study
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, OptimiserParameters, Settings, Strategy, TrainedStrategy, choice, number
from hirise_imb.testing import check_strategy
from hirise_imb.testing.declarations import make_recipe
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")


@dataclass(frozen=True)
class WiderParameters(OptimiserParameters):
    kind: Literal["none", "some"] = choice(default="some", help="whether any are dropped", source="this project")
    share: float = number(
        0.1, 0.9, default=0.5, help="share of dropped features", source="this project", when=("kind", ("some",))
    )


class WiderStrategy(TrainedStrategy[WiderParameters]):
    """Another dropout: a remedy that nobody has proposed."""

    name = "wider"
    summary = "more or less of the features are dropped"
    source = "this project"
    parameters = WiderParameters

    def apply(self, recipe: Recipe, parameters: WiderParameters) -> Recipe:
        return replace(recipe, dropout=parameters.share if parameters.kind == "some" else 0.0)

    def initial_points(self) -> list[Settings]:
        return [{"kind": "none"}]


def test_it_passes_the_contract() -> None:
    check_strategy(WiderStrategy())


@pytest.fixture
def wider(monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """Known to the package for the time of a test, by its entry alone."""
    monkeypatch.setitem(STRATEGIES, WiderStrategy.name, WiderStrategy())
    return STRATEGIES[WiderStrategy.name]


def test_it_is_listed(wider: Strategy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["strategies"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in STRATEGIES)
    assert main.main(["strategies", "wider"]) == 0
    shown = capsys.readouterr().out
    assert wider.summary in shown
    assert "share: a number from 0.1 to 0.9 (default 0.5), with kind some" in shown
    assert "learning_rate: " in shown


@pytest.fixture
def definition(toy: str, small_data: Path) -> StudyDefinition:
    return StudyDefinition(
        name="t",
        data=str(small_data),
        backbone=toy,
        weights="random",
        strategies=("wider",),
        trials=2,
        trial_seeds=1,
        refits=1,
        evaluation=("given-split",),
    )


def test_it_is_searched_and_compared(wider: Strategy, definition: StudyDefinition, tmp_path: Path) -> None:
    results, page = run_study(definition, tmp_path)
    assert page.exists()
    summary = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
    arms = {arm["name"]: arm for arm in summary["arms"]}
    assert list(arms) == ["baseline", "baseline_to_the_end", "plain", "wider"]
    arm = arms["wider"]
    assert arm["summary"] == wider.summary
    [selection] = arm["selections"]
    assert selection["recipe"] == make_recipe(wider, selection["settings"]).to_dict()
    assert len(selection["trials"]) == 2
    assert 0 <= arm["scores"]["macro_f1"]["mean"] <= 1
    table = pd.read_csv(page.parent / "per_class.csv")
    assert set(table.loc[table["arm"] == "wider", "class"]) == set(HIRISE.classes)
    chances = next(one for one in results.arms if one.name == "wider").predictions[0].probabilities
    assert np.isfinite(chances).all()


@pytest.mark.slow
@pytest.mark.usefixtures("wider")
def test_a_definition_narrows_its_search(
    definition: StudyDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search keeps to the overrides, the report shows them, and a search with others is another search."""
    overrides: dict[str, dict[str, Override]] = {
        "wider": {"kind": "some", "share": Range(0.2, 0.3), "weight_decay": 0.01}
    }
    narrowed = replace(definition, overrides=overrides, trials=3)
    results, page = run_study(narrowed, tmp_path)
    [arm] = [one for one in results.arms if one.name == "wider"]
    [selection] = arm.selections
    assert selection.settings["kind"] == "some"
    assert 0.2 <= float(selection.settings["share"]) <= 0.3
    assert selection.settings["weight_decay"] == 0.01
    assert selection.recipe["dropout"] == selection.settings["share"]

    summary = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
    described = {one["name"]: one for one in summary["strategies"]}
    ranges = {parameter["name"]: parameter["range"] for parameter in described["wider"]["parameters"]}
    assert ranges == {
        "kind": "fixed at some (declared: one of none, some)",
        "share": "a number from 0.2 to 0.3 (declared: a number from 0.1 to 0.9)",
        "weight_decay": "fixed at 0.01 (declared: a number from 0.0001 to 1, log scale)",
    }
    shared = {parameter["name"]: parameter["strategies"] for parameter in summary["shared_parameters"]}
    assert shared == {"learning_rate": ["plain", "wider"], "weight_decay": ["plain"]}
    assert load_definition(page.with_name("study.toml"), {}) == narrowed

    others: list[dict[str, dict[str, Override]]] = [{}, {"wider": {"kind": "some"}}]
    for other in others:
        with pytest.raises(UserError, match=r'^The study t/wider was begun with overrides kind = "some", share = '):
            run_study(replace(narrowed, overrides=other), tmp_path)
    same: dict[str, dict[str, Override]] = {
        "wider": {"weight_decay": 0.01, "share": Range(0.2, 0.3), "kind": ("some",)}
    }
    monkeypatch.setattr("hirise_imb.pipeline.runner.write_report", lambda *_: page)  # the same page again
    again = run_study(replace(narrowed, overrides=same), tmp_path)[0]
    assert [one.selections for one in again.arms] == [one.selections for one in results.arms]


@pytest.mark.usefixtures("wider")
def test_a_wrong_override_is_refused_before_any_work(definition: StudyDefinition, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^strategies\.wider\.share is 2: it must be a number from 0\.1 to 0\.9, or "):
        run_study(replace(definition, overrides={"wider": {"share": 2}}), tmp_path)
    assert not list(tmp_path.iterdir())
