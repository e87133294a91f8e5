"""The review page in Chromium: labelling by keyboard and mouse, progress that stays, and labels that can be added."""

from __future__ import annotations

import csv
import html
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import OVERFLOWING, needs_chromium, open_page, start_browser
from playwright.sync_api import Browser, BrowserContext, Page
from review_files import CLASSES, N_IMAGES, make_review

from hirise_imb.backbones import Backbone
from hirise_imb.cli.main import main
from hirise_imb.data.additions import read_labels
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.load import load_data
from hirise_imb.review import Review, write_review
from hirise_imb.review.page import CLASS_KEYS, COMMAND_KEYS, view_of

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, small_data: Path) -> Review:
    return make_review(tmp_path_factory.mktemp("review"), backbone, small_data)


@pytest.fixture(scope="module")
def path(review: Review, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_review(review, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@contextmanager
def new_context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without any progress."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    yield context
    context.close()


def open_in(context: BrowserContext, path: Path) -> Page:
    page = context.new_page()
    page.goto(path.as_uri())
    return page


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def progress(page: Page) -> str:
    return page.locator("#progress").inner_text()


def current(page: Page) -> int:
    """Place of the current candidate, which has the focus as soon as a key was pressed."""
    return int(page.locator("[aria-current]").get_attribute("data-place") or -1)


def save(page: Page, folder: Path, key: str = "d") -> Path:
    with page.expect_download() as download:
        press(page, key)
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def test_it_opens_offline_without_a_complaint_or_a_request(path: Path, browser: Browser) -> None:
    with open_page(browser, path) as found:
        assert found.messages == []
        assert [url for url in found.requests if not url.startswith("data:")] == [path.as_uri()]
        assert found.page.locator(".candidate").count() == N_IMAGES
        assert found.page.locator("img.crop").first.evaluate("e => e.naturalWidth") == HIRISE.image_size
        assert found.page.locator(".alike img").count() >= N_IMAGES


@pytest.mark.parametrize("width", [360, 800, 1440])
def test_nothing_sticks_out_of_the_window(width: int, path: Path, browser: Browser) -> None:
    with open_page(browser, path, width) as found:
        assert found.page.evaluate(OVERFLOWING) == []
        press(found.page, "1", "s")
        assert found.page.evaluate(OVERFLOWING) == []
        bar = found.page.locator(".bar").bounding_box()
        card = found.page.locator("[aria-current] .crop").bounding_box()
        assert bar is not None
        assert card is not None
        assert card["y"] + card["height"] <= bar["y"]  # the bar does not cover what is looked at


@pytest.mark.slow
def test_axe_finds_nothing_serious(path: Path, browser: Browser) -> None:
    with open_page(browser, path) as found:
        press(found.page, "1", "s")
        violations = Axe().run(found.page).response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert grave == []


def test_no_candidate_is_labelled_unseen(path: Path, browser: Browser) -> None:
    """After scrolling by mouse, and after a reload, which browsers scroll to where the page was before."""
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "2")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        press(page, "3")
        assert progress(page) == f"1 labelled, 0 skipped, {N_IMAGES - 1} left."
        assert page.evaluate("document.querySelector('[aria-current]').getBoundingClientRect().top") > 0
        press(page, "3")
        assert progress(page) == f"2 labelled, 0 skipped, {N_IMAGES - 2} left."
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.reload()
        place = page.locator("[aria-current]").bounding_box()
        assert place is not None
        assert 0 < place["y"] < 900


def test_saving_says_what_it_did(path: Path, browser: Browser, tmp_path: Path) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "s", "d")
        assert progress(page).endswith("Nothing is labelled yet.")
        press(page, "2")
        assert "yet" not in progress(page)
        save(page, tmp_path)
        assert progress(page).endswith("LABELS.csv is saved.")


def test_the_page_names_the_next_command(review: Review, path: Path) -> None:
    assert review.training is not None
    words = ["hirise-imb", "data", "add", "LABELS.csv", "--data", review.training.name, "--images", *review.places]
    assert f"<code>{html.escape(shlex.join(words))} --out FOLDER</code>" in path.read_text(encoding="utf-8")


def test_labels_given_by_keyboard_become_a_data_set(
    review: Review,
    path: Path,
    browser: Browser,
    tmp_path: Path,
    small_data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "2", "8", "3", "s", "1", "u")
        assert progress(page) == f"3 labelled, 1 skipped, {N_IMAGES - 4} left."
        assert current(page) == 4
        assert page.evaluate("document.activeElement.dataset.place") == "4"

        page.reload()
        assert progress(page) == f"3 labelled, 1 skipped, {N_IMAGES - 4} left."
        assert current(page) == 4
        assert page.locator(".candidate").nth(1).locator(".state").inner_text() == "labelled spider"
        labels = save(page, tmp_path)

    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = zip(review.proposals, ("crater", "spider", "dark dune"), strict=False)
    assert rows == [
        {"id": one.id, "source": one.source, "label": name, "queue": review.digest} for one, name in expected
    ]

    images = str(Path(review.proposals[0].id).parent)
    words = [str(labels), "--data", str(small_data), "--images", images, "--out", str(tmp_path / "new")]
    assert main(["data", "add", *words]) == 0
    assert "Added to train: 1 crater, 1 dark dune, 1 spider." in capsys.readouterr().out
    manifest = load_data(str(tmp_path / "new"), HIRISE)
    rows_of = {row["image"]: row for row in manifest.table.to_dict("records")}
    for one, name in zip(review.proposals, ("crater", "spider", "dark dune"), strict=False):
        image = Path(one.id).name
        assert CLASSES[rows_of[image]["label"]] == name
        assert rows_of[image]["split"] == "train"
        assert manifest.path(image).read_bytes() == Path(one.id).read_bytes()


def test_undo_goes_back_step_by_step_to_the_candidate(path: Path, browser: Browser) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "2", "ArrowRight", "3", "Backspace")
        assert (current(page), progress(page)) == (2, f"1 labelled, 0 skipped, {N_IMAGES - 1} left.")
        press(page, "u", "u", "u")  # there is no more to take back
        assert (current(page), progress(page)) == (0, f"0 labelled, 0 skipped, {N_IMAGES} left.")


def test_a_label_can_be_changed_and_the_change_be_taken_back(path: Path, browser: Browser) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        state = page.locator(".candidate").first.locator(".state")
        press(page, "2", "ArrowLeft", "3")
        assert state.inner_text() == "labelled dark dune"
        press(page, "u")
        assert state.inner_text() == "labelled crater"
        press(page, "s")
        assert state.inner_text() == "skipped"


def test_arrows_stop_at_both_ends_and_a_key_goes_to_the_next_class(
    review: Review, path: Path, browser: Browser
) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "ArrowUp")
        assert current(page) == 0
        second = next(place for place, one in enumerate(review.proposals) if one.label == CLASSES.rare_ids[1])
        press(page, "n")
        assert current(page) == second
        press(page, "1", "ArrowLeft", "ArrowLeft", "n")
        assert current(page) == second + 1  # the first one is labelled
        press(page, *["ArrowDown"] * 20)
        assert current(page) == N_IMAGES - 1
        press(page, "n")
        assert current(page) == 0


def test_it_works_by_mouse(path: Path, browser: Browser, tmp_path: Path) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        page.locator(".candidate").nth(3).locator("img.crop").click()
        assert current(page) == 3
        page.get_by_role("button", name="crater").click()
        page.get_by_role("button", name="skip").click()
        page.get_by_role("button", name="undo").click()
        assert (current(page), progress(page)) == (4, f"1 labelled, 0 skipped, {N_IMAGES - 1} left.")
        page.get_by_role("link", name="spider", exact=True).click()
        assert page.locator("#class-6 [aria-current]").count() == 1
        with page.expect_download() as download:
            page.get_by_role("button", name="save").click()
        download.value.save_as(tmp_path / "LABELS.csv")
    assert [label.class_name for label in read_labels([tmp_path / "LABELS.csv"], CLASSES)] == ["crater"]


def test_a_button_with_the_focus_is_pressed_by_space(path: Path, browser: Browser) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        page.get_by_role("button", name="spider").focus()
        press(page, " ")
        assert page.locator(".candidate").first.locator(".state").inner_text() == "labelled spider"
        press(page, " ")  # the next candidate has the focus
        assert progress(page) == f"1 labelled, 1 skipped, {N_IMAGES - 2} left."


def test_keys_of_the_browser_are_left_alone(path: Path, browser: Browser) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, "Control+1", "Alt+2", "Meta+s", "9", "x")
        assert progress(page) == f"0 labelled, 0 skipped, {N_IMAGES} left."


def test_when_all_is_done_the_page_says_to_save(path: Path, browser: Browser, tmp_path: Path) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        press(page, *["1"] * N_IMAGES)
        assert progress(page) == f"{N_IMAGES} labelled, 0 skipped, 0 left. Save LABELS.csv."
        assert len(read_labels([save(page, tmp_path)], CLASSES)) == N_IMAGES


def test_each_queue_has_its_own_progress(review: Review, path: Path, browser: Browser, tmp_path: Path) -> None:
    other = write_review(replace(review, proposals=review.proposals[:5]), tmp_path)
    with new_context(browser) as context:
        press(open_in(context, path), "2", "2")
        assert progress(open_in(context, other)) == "0 labelled, 0 skipped, 5 left."
        assert progress(open_in(context, path)) == f"2 labelled, 0 skipped, {N_IMAGES - 2} left."


@pytest.mark.parametrize("content", ["{", "[[99, 1]]", "[[0, 8]]", '[["x", 1]]', '{"a": 1}'])
def test_progress_that_makes_no_sense_is_ignored(content: str, review: Review, path: Path, browser: Browser) -> None:
    with new_context(browser) as context:
        page = open_in(context, path)
        page.evaluate(
            "([key, text]) => localStorage.setItem(key, text)", [f"hirise-imb-review-{review.digest}", content]
        )
        page.reload()
        press(page, "2")
        assert progress(page).startswith(f"1 labelled, 0 skipped, {N_IMAGES - 1} left.")


def test_without_storage_labels_can_be_given_and_saved(path: Path, browser: Browser, tmp_path: Path) -> None:
    with new_context(browser) as context:
        context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})")
        page = open_in(context, path)
        press(page, "2")
        assert "does not keep your progress" in progress(page)
        assert len(read_labels([save(page, tmp_path)], CLASSES)) == 1


STRANGE = (
    "=HYPERLINK(1).jpg",
    "+1.jpg",
    "-2.jpg",
    "@sum.jpg",
    "'quoted.jpg",
    'a "b", c.jpg',
    "</script><script>alert(1)</script>.jpg",
    "<img src=x onerror=alert(1)>.jpg",
)


def test_names_can_neither_act_as_formulas_nor_as_markup(review: Review, browser: Browser, tmp_path: Path) -> None:
    renamed = [replace(one, id=name, source=name) for one, name in zip(review.proposals, STRANGE, strict=False)]
    page_path = write_review(replace(review, proposals=tuple(renamed)), tmp_path / "page")
    with open_page(browser, page_path) as found:
        press(found.page, *["2"] * len(STRANGE))
        labels = save(found.page, tmp_path)
        assert found.messages == []
        shown = found.page.locator(".candidate .id").all_inner_texts()
        assert [text.split("\n")[0] for text in shown] == list(STRANGE)
    with labels.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert [(label.id, label.source) for label in read_labels([labels], CLASSES)] == [(n, n) for n in STRANGE]
    queue = (page_path.parent / "queue.csv").read_text(encoding="utf-8")
    assert not [line for line in queue.splitlines() if line.startswith(("=", "+", "-", "@"))]


def test_without_scripts_the_candidates_are_there_and_the_page_says_what_is_missing(
    path: Path, browser: Browser
) -> None:
    with open_page(browser, path, scripts=False) as found:
        assert found.page.locator("img.crop:visible").count() == N_IMAGES
        assert found.page.locator(".bar:visible").count() == 0
        assert found.page.get_by_text("only where JavaScript is allowed").is_visible()


def test_more_classes_than_digits_have_letters_and_all_have_buttons(review: Review) -> None:
    names = tuple(f"terrain {number}" for number in range(40))
    facts = replace(review.facts, classes=names, majority=None)
    buttons = view_of(replace(review, facts=facts, proposals=())).buttons
    keys = [button.key for button in buttons]
    assert keys[:11] == [*"123456789", "a", "b"]
    assert not set(keys) & set(COMMAND_KEYS)
    assert keys[len(CLASS_KEYS) :] == [""] * (40 - len(CLASS_KEYS))
    assert ClassSet(names).rare_ids == tuple(range(40))


def test_a_queue_without_candidates_opens(review: Review, browser: Browser, tmp_path: Path) -> None:
    path = write_review(replace(review, proposals=(), errors=3), tmp_path)
    with open_page(browser, path) as found:
        press(found.page, "1", "ArrowDown", "n", "u", "s")
        assert found.messages == []
        assert found.page.get_by_text("There are no candidates.").count() == len(CLASSES.rare_ids)
        assert found.page.get_by_text("3 images could not be predicted.").is_visible()
