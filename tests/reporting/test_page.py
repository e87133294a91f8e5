"""Pages in Chromium: opened from disk with the network off, on a phone, a tablet and a desk, by keyboard, on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import CUT, OVERFLOWING, needs_chromium, open_page, start_browser
from handmade import guesses, make_arm, make_catalogue, make_nested_results, make_results, without_figures
from playwright.sync_api import Browser, Page, expect

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
def test_paper_has_a_summary_of_two_pages_that_cuts_nothing_off(
    kind: str, pages: dict[str, Path], browser: Browser
) -> None:
    """What only scrolling shows would be lost. A4 is some 690 pixels wide within its margins."""
    with open_page(browser, pages[kind], 690, scheme="dark") as found:
        page = found.page
        page.emulate_media(media="print")
        assert page.evaluate(CUT) == []
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        printed = page.pdf(format="A4")
        if kind in ("study", "nested", "comparison"):
            assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 2
            for part in ("h1", ".forest", ".why li", "table.arms", "[data-slot=panel] table"):
                assert page.locator(part).first.is_visible(), part
            assert page.locator("details:visible, select:visible, nav:visible, .matrix:visible").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scheme"), [*((kind, "light") for kind in KINDS), ("nested", "dark"), ("index", "dark")]
)
def test_axe_finds_nothing_serious(
    kind: str, scheme: Literal["light", "dark"], pages: dict[str, Path], browser: Browser
) -> None:
    with open_page(browser, pages[kind], scheme=scheme) as found:
        open_all(found.page)
        violations = Axe().run(found.page).response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert grave == []


@pytest.mark.parametrize("kind", ["study", "nested", "comparison"])
def test_the_first_screen_has_the_verdict_and_the_forest_plot(
    kind: str, pages: dict[str, Path], browser: Browser
) -> None:
    with open_page(browser, pages[kind]) as found:
        page = found.page
        ends = []
        for part in ("h1", ".advice", ".forest figure"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 1440
            ends.append(box["y"] + box["height"])
        assert ends == sorted(ends)
        assert ends[-1] <= 900
        assert page.locator(".badge").inner_text().lower() in ("clear", "inconclusive", "worse")


FUSED = r"\d\.\d+\.\d|\.\d{3}[+-]|[a-z0-9)]\.[A-Z][a-z]|`"
"""Two numbers or two sentences without white space between them, or a backtick that should be markup."""


@pytest.mark.parametrize("kind", KINDS)
def test_no_numbers_fuse(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind]) as found:
        open_all(found.page)
        texts = found.page.evaluate(TEXTS)
        for text in texts:
            assert len(text) > 500
            assert re.findall(f".{{0,30}}(?:{FUSED}).{{0,30}}", text) == []


TEXTS = """() => {
  document.querySelectorAll("pre, code, script, style").forEach(e => e.remove());
  document.querySelectorAll("template").forEach(e => e.replaceWith(e.content));
  return [document.body.innerText, document.body.textContent];
}"""
"""The text of a page with that of all arms, as it is seen and as it is copied or read aloud."""


@pytest.mark.parametrize("kind", ["study", "nested", "comparison", "index"])
def test_every_column_with_a_button_sorts_by_keyboard(kind: str, pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages[kind]) as found:
        open_all(found.page)
        if kind != "index":
            found.page.get_by_label("All columns").check()
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


def test_the_third_click_restores_the_families(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"]) as found:
        table = found.page.locator("table.arms")
        before = table.inner_text()
        button = table.locator("th button").nth(2)
        button.click()
        assert table.locator(".family:visible").count() == 0
        button.click()
        button.click()
        assert table.inner_text() == before
        assert table.locator(".family:visible").count() >= 3


COLUMN = """b => {
  const th = b.closest("th"), place = Number(th.dataset.column), text = th.dataset.sort === "text";
  const values = [...th.closest("table").querySelectorAll("tbody tr:not(.family)")].map(row => row.cells[place])
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
        assert page.locator("select:visible, .menu:visible").count() == 0
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


def test_one_selector_changes_all_that_is_about_a_strategy(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"]) as found:
        page, section = found.page, found.page.locator("#strategy")
        select = page.get_by_label("Strategy shown")
        first = select.input_value()
        for name in ("plain", "undersampling", "baseline", first):
            select.select_option(name)
            assert page.locator("#arm-shown").inner_text() == name
            assert section.locator("[data-arms]").evaluate_all("parts => parts.map(part => part.dataset.arms)") == (
                [name, name] if name in ("plain", "baseline") else [name]  # closed-form heads have no curves
            )
            labels = section.get_by_role("region").evaluate_all("parts => parts.map(e => e.getAttribute('aria-label'))")
            assert len(labels) >= 3
            assert all(name in label or label == "Operating point" for label in labels)
            assert section.locator("figure").count() == (name in ("plain", "baseline"))
            assert page.evaluate("location.hash") == ("" if name == first else f"#arm={name}")
        assert found.messages == []


def test_the_address_keeps_the_strategy_and_the_section(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"], fragment="#scores&arm=plain-x4") as found:
        page, shown = found.page, found.page.locator("#arm-shown")
        assert shown.inner_text() == "plain-x4"
        assert page.locator("#scores").get_attribute("open") is not None
        assert page.locator("#scores").evaluate("e => Math.abs(e.getBoundingClientRect().top) < 200")
        page.get_by_role("navigation").get_by_role("link", name="Data").click()
        expect(page).to_have_url(re.compile("#data&arm=plain-x4$"))
        assert page.locator("#data").get_attribute("open") is not None
        page.locator("table.arms").get_by_role("link", name="prototypes").click()
        expect(shown).to_have_text("prototypes")
        assert page.evaluate("location.hash") == "#strategy&arm=prototypes"
        assert page.get_by_label("Strategy shown").input_value() == "prototypes"
        page.go_back()
        expect(shown).to_have_text("plain-x4")
    for wrong in ("#arm=nobody", "#arm=%E0%A4%A", "#nowhere"):
        with open_page(browser, pages["comparison"], fragment=wrong) as found:
            assert (
                found.page.locator("#arm-shown").inner_text() == found.page.get_by_label("Strategy shown").input_value()
            )
            assert found.messages == []


def test_the_table_shows_what_can_be_told_apart(pages: dict[str, Path], browser: Browser) -> None:
    """Three views of one table; no p value of 1; an arm that is identical to the control is a name in its last line."""
    with open_page(browser, pages["study"]) as found:
        table = found.page.locator("table.arms")
        names = table.locator("tbody tr:not(.family) th a").all_inner_texts()
        assert sorted(names) == sorted({"baseline", *STRATEGIES} - {"nuisance_projection"})
        assert table.locator("tfoot").inner_text() == "Identical to the control: nuisance_projection"
        assert "1.00" not in table.inner_text()
        assert [title.split("  ")[0] for title in table.locator(".family").all_inner_texts()][:1] == [
            "Baseline and control"
        ]
        counts = []
        for view in ("Main", "Rare classes", "All columns"):
            found.page.get_by_label(view, exact=True).check()
            counts.append(table.locator("thead th:visible").count())
        assert counts[0] < counts[1] < counts[2]
        assert counts == [6, 12, 20]


def test_heading_row_and_contents_stay_in_sight(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["nested"]) as found:
        page = found.page
        heading, last = page.locator("table.arms thead th").first, page.locator("table.arms tbody tr").last
        last.evaluate("e => scrollBy({top: e.getBoundingClientRect().top - 200, behavior: 'instant'})")
        assert last.evaluate("e => e.getBoundingClientRect().top") == pytest.approx(200, abs=2)
        assert heading.evaluate("e => e.getBoundingClientRect().top") == pytest.approx(0, abs=2)
        assert page.get_by_role("navigation").evaluate("e => e.getBoundingClientRect().top") >= 0
        expect(page.locator("nav [aria-current]")).to_have_text("All strategies")
    with open_page(browser, pages["nested"], 360) as found:
        page, links = found.page, found.page.get_by_role("navigation").get_by_role("link")
        assert links.first.is_hidden()
        page.get_by_role("button", name="Contents").click()
        links.filter(has_text="Data").click()
        assert links.first.is_hidden()
        assert page.locator("#data").get_attribute("open") is not None
        assert page.get_by_label("Strategy shown").is_visible()


def test_only_where_sources_are_enough_is_a_winner_bold(pages: dict[str, Path], browser: Browser) -> None:
    with open_page(browser, pages["study"]) as found:
        table = found.page.locator("table.arms")
        places = table.locator("td.best").evaluate_all("cells => cells.map(cell => cell.cellIndex)")
        # Crater alone has six test sources.
        crater = table.get_by_role("columnheader", include_hidden=True).filter(has_text="crater")
        assert set(places) == {int(str(crater.get_attribute("data-column")))}


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
