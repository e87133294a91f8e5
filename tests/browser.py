"""Chromium without a screen, for tests of pages: Debian's or whichever is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A browser that is closed afterwards."""
    with sync_playwright() as playwright:
        # As root, as in a container, there is no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class LoadedPage:
    """A page that was opened from disk with the network off, and what it complained of or asked for."""

    def __init__(self, context: BrowserContext, path: Path, fragment: str) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        context.set_offline(True)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_load_state("load")


@contextmanager
def open_page(
    browser: Browser,
    path: Path,
    width: int = 1440,
    *,
    fragment: str = "",
    scheme: Literal["light", "dark"] = "light",
    scripts: bool = True,
) -> Iterator[LoadedPage]:
    """Open a page in a window of this width."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=scripts, color_scheme=scheme
    )
    try:
        yield LoadedPage(context, path, fragment)
    finally:
        context.close()


OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.scrollingElement.scrollWidth > width) found.push("the page itself");
  const scrolls = e => { for (let p = e.parentElement; p; p = p.parentElement)
    if (p !== document.body && getComputedStyle(p).overflowX !== "visible") return true; return false; };
  for (const e of document.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect(), out = box.right > width + 1 || box.left < -1;
    if (box.width && out && !scrolls(e) && getComputedStyle(e).position !== "absolute")
      found.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 40));
  }
  return found.slice(0, 5);
}"""
"""What sticks out of the window and of no region that scrolls by itself."""

CUT = """() => [...document.body.querySelectorAll("*")].filter(e => {
  const style = getComputedStyle(e), cut = e.clientWidth && e.scrollWidth > e.clientWidth + 1;
  return cut && style.overflowX !== "visible" && style.position !== "absolute";
}).map(e => (e.getAttribute("aria-label") || e.tagName) + " " + e.scrollWidth + " > " + e.clientWidth)"""
"""What paper would cut off: regions that can only be read by scrolling."""
