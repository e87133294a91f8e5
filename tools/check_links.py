"""Checks every link inside the documentation site: files and anchors.

    make docs-links

Links to other sites are listed, not followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and its anchors."""

    def __init__(self, text: str) -> None:
        """Reads a page."""
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the links and the anchors of a tag."""
        for name, value in attrs:
            if value is None:
                continue
            if name in ("href", "src") and not (tag == "link" and ("rel", "canonical") in attrs):
                self.links.append(value)
            elif name in ("id", "name"):
                self.anchors.add(value)


def main(site: Path) -> int:
    """Prints every link that leads nowhere; returns their number."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    pages = {path: page for path, page in pages.items() if not {"_static", "_downloads"} & set(path.parts)}
    n_links, broken, outside = 0, [], set()
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                outside.add(link)
                continue
            n_links += 1
            target = (path.parent / unquote(address.path)).resolve() if address.path else path.resolve()
            if not target.exists():
                broken.append(f"{path.relative_to(site)}: {link} names no file")
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].anchors:
                broken.append(f"{path.relative_to(site)}: {link} names no anchor")
    print("\n".join(broken))
    print(f"{len(pages)} pages, {n_links} links inside the site, {len(broken)} broken; {len(outside)} links to others")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()) > 0)
