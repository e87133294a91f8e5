"""Names with control characters, markup and formulas, on the terminal and in reports."""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import replace

import numpy as np
from builders import LABEL_FILE, valid_lines, write_data
from handmade import three_classes, without_figures
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from hirise_imb.api.report import read_report
from hirise_imb.data.dataset import ClassSet
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.figures import gallery
from hirise_imb.reporting.figures.style import figure_settings
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import Finished, call

_PIECES = (
    *("\x1b[31m", "\x1b]0;title\x07", "\r", "\x08", "\x7f", "\x9b2J", "\u202e", "\u2066", "\u2028", "[bold]", "[/]"),
    *("[red]x[/red]", ":smile:", "%s", "{0}", "'", '"', "é", "火", "a b", "$(id)", "`id`", "-x", "=1", "\udcff", "\n"),
)


def _expect_inert(result: Finished) -> None:
    """Fails if output contains anything that moves a cursor, changes colours or turns text around."""
    for character in result.out + result.err:
        kind = unicodedata.category(character)
        assert character == "\n" or kind not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(result.out + result.err)
    assert "Traceback" not in result.err, result.err


@attack(Area.DATA, "Control characters, rich markup and other code in the names of files and folders", tries=40)
def hostile_paths(attempt: Attempt) -> Outcome:
    name = "".join(attempt.random.sample(_PIECES, attempt.random.randint(1, 4)))
    folder = attempt.folder / f"a{name}"
    write_data(folder, valid_lines())
    shown = re.sub(r"[^\w\[\]:%{}' é火]+", "", "".join(set(name) & set("[]:")))
    for path in folder.rglob("*.jpg"):
        Image.fromarray(np.zeros((227, 227), np.uint8)).save(path)
    checked = call("data", "check", folder)
    _expect_inert(checked)
    checked.expect_success()
    assert all(character in checked.out for character in shown), checked.out
    (folder / LABEL_FILE).write_text(f"{name} 99\n", encoding="utf-8", errors="surrogateescape")
    for words in (
        *(["data", "check", folder], ["report", folder], ["compare", folder, attempt.folder], ["run", folder]),
        *(["models", folder], ["forensics", folder], ["data", name], ["forensics", folder, f"--{name}"]),
        *(["run", "--data", folder, "--name", name], ["data", "import", folder / name.replace("/", "")]),
    ):
        result = call(*words)
        _expect_inert(result)
        assert result.code == 2, (words, result.out)
    return Outcome.REFUSED


_CLASSES = (
    *("$\\frac$", "$x$", "a_b^c", "\\n", "$", "-1", "@x", "a|b", "**b**", "[x](http://evil.example)", "`c`"),
    *("&lt;", "#", "é火", "{{ 1 }}", "{% x %}", "%s", '"', "'", "[red]", "a b"),
)


@attack(Area.DATA, "Classes called like formulas, Markdown, HTML or mathematics, in all files of a report", tries=12)
def hostile_classes(attempt: Attempt) -> Outcome:
    formula = attempt.random.choice(["=HYPERLINK(1)", "+1"])
    names = ("<script>x</script>", formula, attempt.random.choice(_CLASSES))
    made = three_classes()
    data = made.data.assign(**{"class": np.resize(np.array(names, object), len(made.data))})
    folder = attempt.folder / "report"
    results = replace(made, classes=ClassSet(names), data=data)
    with without_figures():
        write_report(results, folder)
    figure = attempt.random.choice(["class_distribution", "confusion/plain", "sources", "f1_per_class"])
    _expect_literal(results, figure if "/" in figure else f"figures/{figure}", names)
    for path in folder.rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@") and not _is_number(cell)], path
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = (folder / "report.md").read_text(encoding="utf-8")
    for markup in ("<script>x", r"(?<!\\)\]\(http", r" \*\*b\*\*", " `c`"):
        assert not re.search(markup, text), markup
    assert "<script>x" not in page
    for axes in (read_report(folder).per_class.plot(), read_report(folder).confusion("plain").plot()):
        axes.figure.canvas.draw()
    plt.close("all")
    with without_figures():
        other = write_report(replace(results, name="other"), attempt.folder / "other").parent
        printed = call("compare", folder, other, "--out", attempt.folder)
    _expect_inert(printed)
    printed.expect_success()
    return Outcome.HARMLESS


def _expect_literal(results: Results, name: str, classes: tuple[str, ...]) -> None:
    """Fails unless a figure can be drawn and shows classes by their names, in which nothing is a formula."""
    with figure_settings():
        figure = gallery.of_study(results)[name]().figure
        # A canvas of Agg renders all texts, as writing a PNG does.
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    texts = [text for text in figure.findobj(Text) if any(known in text.get_text() for known in classes)]
    assert texts
    assert not any(text.get_parse_math() for text in texts)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
