"""Figures of the search and the fits of one arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_results import (
    data,
    divided,
    search_of,
    usual,
    with_searches,
    words,
)
from handmade import SEEDS, guesses, make_arm, make_catalogue, make_results, summary_of, with_selection, without_figures

from hirise_imb.reporting import Results, tables, write_report
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.read import list_inputs, read_report


@pytest.fixture(scope="module")
def results() -> Results:
    return usual()


def test_each_trial_is_drawn_against_its_hyperparameters(results: Results) -> None:
    selection = search_of(40)
    searched = with_searches(results, selection)
    drawing = gallery.of_study(searched)["figures/hyperparameters-remedy"]()
    table = drawing.data
    # The failed trial and what no trial varies are not there.
    assert set(table["hyperparameter"]) == {"rate", "kind", "power"}
    assert table.groupby("hyperparameter").size().to_dict() == {"rate": 40, "kind": 40, "power": 20}
    for row in table.to_dict("records"):
        trial = selection.trials[row["trial"] - 1]
        assert (row["setting"], row["value"]) == (trial["params"][row["hyperparameter"]], trial["value"])
    best = max(range(40), key=lambda place: selection.trials[place]["value"])
    assert set(table.loc[table["chosen"], "trial"]) == {best + 1}
    shares = table.groupby("hyperparameter")["importance"].first()
    assert shares.sum() == pytest.approx(1)
    assert shares.idxmax() == "rate"
    axes = drawing.figure.axes[0]
    assert axes.get_title(loc="left") == f"rate, {100 * shares['rate']:.0f} %"
    assert axes.get_xscale() == "log"
    drawn = np.sort(np.concatenate([np.asarray(line.get_xdata(), float) for line in axes.lines]))
    assert drawn == pytest.approx(np.sort(table.loc[table["hyperparameter"] == "rate", "setting"].astype(float)))


def test_scores_of_several_searches_are_differences_from_the_mean_of_each(results: Results) -> None:
    searched = with_searches(divided(results), search_of(5, "fold 1"), search_of(6, "fold 2"))
    table = data(searched, "hyperparameters-remedy")
    rates = table[table["hyperparameter"] == "rate"]
    assert rates.groupby("division")["difference"].mean().to_numpy() == pytest.approx([0, 0])
    means = rates.groupby("division")["value"].transform("mean")
    assert (rates["value"] - means).tolist() == pytest.approx(rates["difference"].tolist())
    # Ten trials are needed in a search.
    assert table["importance"].isna().all()
    written = words(searched, "figures/hyperparameters-remedy")
    assert any("too few to estimate importance" in text for text in written)


def test_searches_without_hyperparameters_have_no_figure_of_them(results: Results) -> None:
    assert not [name for name in gallery.of_study(results) if "hyperparameters" in name]
    few = with_searches(results, search_of(2))
    assert not [name for name in gallery.of_study(few) if "hyperparameters" in name]


def test_arms_that_share_fits_share_a_file_of_curves(results: Results) -> None:
    first, plain, remedy = results.arms
    twin = replace(remedy, name="twin", histories=plain.histories)
    other = replace(twin, name="other", seeds=(7, 8))  # other seeds are other fits
    shared = replace(results, arms=(first, plain, remedy, twin, other))
    owners = tables.share_curves(shared.arms)
    assert owners == {"baseline": "baseline", "plain": "plain", "remedy": "remedy", "twin": "plain", "other": "other"}
    drawn = gallery.of_study(shared)
    assert {name for name in drawn if "curves-" in name} == {f"figures/curves-{name}" for name in set(owners.values())}
    assert "plain, twin" in words(shared, "figures/curves-plain")


def test_curves_show_macro_f1_and_what_early_stopping_monitored(results: Results) -> None:
    *others, arm = results.arms
    history = arm.histories[0].assign(val_macro_f1=[0.2, 0.3, 0.35])
    [selection] = arm.selections
    monitored = replace(selection, recipe={"monitor": "val_macro_f1"})
    monitored_arm = replace(arm, histories=(history, history), selections=(monitored,))
    changed = replace(results, arms=(*others, monitored_arm))
    figure = gallery.of_study(changed)["figures/curves-remedy"]().figure
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["cross-entropy (nats)", "accuracy", "macro F1, monitored by early stopping"]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [0.2, 0.3, 0.35]  # type: ignore[union-attr]
    low, high = figure.axes[1].get_ylim()
    assert 0.4 < low < 0.5
    assert 0.75 < high < 0.85


def test_a_report_keeps_hyperparameters_and_one_file_for_curves_that_arms_share(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path / "data")
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [
        make_arm(catalogue, name, [guesses(truth, 0.8, seed) for seed in SEEDS], val)
        for name, val in (("baseline", 0.4), ("plain", 0.5), ("tta", 0.5))
    ]
    search = search_of(12)
    arms = [with_selection(arm, trials=search.trials, space=search.space) for arm in arms]
    searched = make_results(catalogue, *arms)
    with without_figures():
        write_report(searched, tmp_path / "report")
    stored = {arm["name"]: arm for arm in summary_of(tmp_path / "report")["arms"]}
    assert {name: arm["curves"] for name, arm in stored.items()} == {
        "baseline": "baseline",
        "plain": "plain",
        "tta": "plain",
    }
    assert not (tmp_path / "report/figures/curves-tta.csv").exists()
    assert "figures/curves-plain.csv" in list_inputs(tmp_path / "report")
    again = read_report(tmp_path / "report")
    for before, after in zip(searched.arms, again.arms, strict=True):
        assert [list(one.trials) for one in after.selections] == [list(one.trials) for one in before.selections]
        assert [one.space for one in after.selections] == [one.space for one in before.selections]
        for one, two in zip(before.histories, after.histories, strict=True):
            pd.testing.assert_frame_equal(one, two)
    table = pd.read_csv(tmp_path / "report/figures/hyperparameters-tta.csv")
    assert len(table) == 12 + 12 + 6
