"""Pages in Chromium: opened from disk with the network off, on a phone, a tablet and a desk, by keyboard, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import CUT, OVERFLOWING, needs_chromium, open_page, start_browser
from handmade import guesses, make_arm, make_catalogue, make_nested_results, make_results, without_figures
from playwright.sync_api import Browser, Page

from hirise_imb.models.closed_form import NearestMean
from hirise_imb.pipeline.rebuild import compare_reports
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Baseline, Results, write_baseline, write_report

pytestmark = needs_chromium

WIDTHS = (360, 800, 1440)
KINDS = ("study", "nested", "comparison", "baseline", "index")
STRATEGIES = (
    "baseline_to_the_end",
    "plain",
    "plain-x4",
    "logit_adjusted_loss",
    "nuisance_projection",
    "prototypes",
    "undersampling",
)


def make_study(folder: Path) -> Results:
    """The baseline and seven arms, of classes with one source and with many; one class is absent.

    undersampling averages four fits like plain-x4; nuisance_projection is identical to the control.
    """
    catalogue = make_catalogue(folder, (300, 40, 20, 12, 8, 4, 9, 0))
    truth = catalogue.canonical_images("test")["label"].tolist()

    def arm(place: int, name: str) -> Arm:
        computed = Recipe(head=NearestMean(normalise="unit", prior_power=0.0))  # has no curves to draw
        recipe = None if name.startswith(("baseline", "plain")) else computed
        right = 0.6 + 0.05 * (STRATEGIES.index("plain") + 1 if name == "nuisance_projection" else place)
        fits = [guesses(truth, right, seed) for seed in (3, 4)]
        members = 4 if name in ("plain-x4", "undersampling") else 1
        return make_arm(catalogue, name, fits, 0.4 + 0.02 * place, recipe, members=members)

    return make_results(catalogue, *(arm(place, name) for place, name in enumerate(("baseline", *STRATEGIES))))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    out = tmp_path_factory.mktemp("pages")
    results = make_study(tmp_path_factory.mktemp("data"))
    study = write_report(results, out / "reports" / "by-hand")
    (out / "reports" / "broken").mkdir()
    (out / "reports" / "broken" / "summary.json").write_text("{")
    nothing: dict[str, Any] = {"strategies": [], "shared_parameters": []}
    alone = replace(results, arms=results.arms[:1], appendix=nothing)
    baseline = write_baseline(Baseline(alone), out / "reports" / "by-hand" / "baseline")
    long_name = out / "elsewhere" / "by-hand-with-a-name-that-is-rather-long"
    with without_figures():  # its own page is not looked at
        write_report(results, long_name)
    shares = {"baseline": 0.4, "plain": 0.6, "undersampling": 0.8, "nuisance_projection": 0.6}
    nested = make_nested_results(make_catalogue(tmp_path_factory.mktemp("every")), shares, given_split=results)
    with without_figures():
        write_report(nested, out / "reports" / "nested")
    _, comparison = compare_reports([study.parent, long_name], "both", out)
    return {
        "study": study,
        "nested": out / "reports" / "nested" / "report.html",
        "comparison": comparison,
        "baseline": baseline,
        "index": out / "reports" / "index.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_offline_without_a_complaint_or_a_request(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind]) as found:
        assert found.page.title()
        assert found.messages == []
        asked = [url for url in found.requests if not url.startswith("data:")]
        assert asked == [pages[kind].as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_sticks_out_of_the_window(kind: str, width: int, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind], width) as found:
        assert found.page.evaluate(OVERFLOWING) == []
        open_all(found.page)
        assert found.page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("kind", KINDS)
def test_paper_cuts_nothing_off(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    """What only scrolling shows would be lost. A4 is some 690 pixels wide within its margins."""
    with open_page(browser, pages[kind], 690) as found:
        found.page.emulate_media(media="print")
        found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert found.page.evaluate("[...document.querySelectorAll('details')].every(e => e.open)")
        assert found.page.evaluate(CUT) == []
        assert found.page.evaluate(OVERFLOWING) == []
        assert found.page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind]) as found:
        open_all(found.page)
        violations = Axe().run(found.page).response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert grave == []


@pytest.mark.parametrize("kind", ["study", "nested", "comparison", "index"])
def test_every_column_with_a_button_sorts_by_keyboard(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind]) as found:
        open_all(found.page)
        buttons = found.page.query_selector_all("table thead th button")
        assert len(buttons) >= 3
        for button in buttons:
            button.focus()
            seen = []
            for _ in range(2):
                found.page.keyboard.press("Enter")
                order, values, focused = found.page.evaluate(COLUMN, button)
                seen.append(order)
                assert_sorted(values, ascending=order == "ascending")
                assert focused
            assert set(seen) == {"ascending", "descending"}
        assert found.messages == []


COLUMN = """b => {
  const th = b.closest("th"), place = Number(th.dataset.column), text = th.dataset.sort === "text";
  const values = [...th.closest("table").tBodies[0].rows].map(row => row.cells[place])
    .map(cell => text ? cell.textContent.trim() : cell.dataset.value ?? "–");
  return [th.getAttribute("aria-sort"), values, b === document.activeElement];
}"""
"""How the column of a button is sorted, its values in the order of rows, and whether the button has the focus."""


def assert_sorted(values: list[str], *, ascending: bool) -> None:
    """Numbers as numbers, what is none last either way; strings as strings."""
    there = [value for value in values if value != "–"]
    assert values == there + ["–"] * (len(values) - len(there))
    try:
        numbers = [float(value) for value in there]
    except ValueError:
        words = [value.casefold() for value in there]
        assert words == sorted(words, reverse=not ascending)
    else:
        assert numbers == sorted(numbers, reverse=not ascending)


def open_all(page: Page) -> None:
    """Unfold everything."""
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_everything_is_there(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    """What scripts alone could work is not shown, and what is folded unfolds by keyboard."""
    with open_page(browser, pages[kind], scripts=False) as found:
        page = found.page
        assert page.locator("select:visible").count() == 0
        assert page.locator("th button:visible:not([disabled])").count() == 0
        for summary in page.locator("summary").all()[:3]:
            details = summary.locator("xpath=..")
            before = details.get_attribute("open")
            summary.focus()
            page.keyboard.press("Enter")
            assert (details.get_attribute("open") is None) != (before is None)
        if kind != "index":
            for name in ("swiss cheese", "impact ejecta", "slope streak"):
                assert page.get_by_text(name).first.is_visible()


def test_the_arm_in_detail_is_chosen_by_keyboard(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"]) as found:
        select = found.page.locator("select").first
        names = select.locator("option").all_inner_texts()
        assert len(names) >= len(STRATEGIES)
        select.focus()
        before = found.page.locator("main").inner_text()
        found.page.keyboard.press("End")
        found.page.keyboard.press("Enter")
        assert select.evaluate("s => s.selectedIndex") == len(names) - 1
        assert found.page.locator("main").inner_text() != before
        last = found.page.locator("details.arm").last
        panel = last.locator(".panel").evaluate("e => e.textContent")
        assert found.page.locator("#arm-panel").evaluate("e => e.textContent") == panel
        assert found.page.locator("#arm-shown").inner_text() == f"{names[-1]} against baseline"
        assert found.messages == []


def test_only_where_sources_are_enough_is_a_winner_bold(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"]) as found:
        table = found.page.get_by_role("region", name="F1 of each class").locator("table")
        bold = table.locator("td.best").evaluate_all("cells => cells.map(cell => cell.cellIndex)")
        # Crater alone has six test sources: it stands after the arm, the mean of rare classes, and other.
        assert set(bold) == {3}


def test_the_index_leads_to_every_report(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["index"]) as found:
        links = found.page.locator("a[href$='report.html']")
        places = sorted({str(link.get_attribute("href")) for link in links.all()})
        assert places == [
            "both/report.html",
            "by-hand/baseline/report.html",
            "by-hand/report.html",
            "nested/given-split/report.html",
            "nested/report.html",
        ]
        assert "broken" in found.page.locator("main").inner_text()
        links.first.click()
        found.page.wait_for_load_state("load")
        assert found.page.url.endswith("report.html")
        assert found.messages == []
