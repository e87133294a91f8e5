"""Reports as text and as HTML, for consoles and notebooks."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd

from hirise_imb.reporting.formatting import MISSING, p_digits, plural, score, signed
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from hirise_imb.api.report import Report

_MOST_ARMS = 12
"""Most arms in the table of a report; `arms.frame()` has all of them."""
_BADGES = {"clear": ("clear", "#15803d"), "inconclusive": ("inconclusive", "#4b5563"), "worse": ("worse", "#b91c1c")}
"""Text and colour of the badge of each outcome."""


def describe_report(report: Report, results: Results) -> str:
    """Returns the verdict and the arms as text."""
    table, n_hidden = _table(report, results)
    lines = [_title(report, results), report.verdict.headline]
    lines += [report.verdict.advice] if report.verdict.advice else []
    lines += ["", table.to_string(index=False)]
    if n_hidden:
        lines.append(f"... and {plural(n_hidden, 'more arm')}: see .arms.frame()")
    if report.page is not None:
        lines.append(f"Page: {report.page}")
    return "\n".join(lines)


def render_report(report: Report, results: Results) -> str:
    """Returns the verdict, the arms and a forest plot as one HTML element, which needs no other file."""
    verdict = report.verdict
    badge, colour = _BADGES[verdict.outcome]
    table, n_hidden = _table(report, results)
    more = f"<p>… and {plural(n_hidden, 'more arm')}: see <code>.arms.frame()</code></p>" if n_hidden else ""
    return (
        f'<div style="max-width:60em"><p style="margin:0">{escape(_title(report, results))}</p>'
        f'<p style="font-size:1.3em;margin:.3em 0"><span style="background:{colour};color:#fff;border-radius:.3em;'
        f'padding:.1em .4em;font-size:.7em">{badge}</span> <strong>{escape(verdict.headline)}</strong></p>'
        f"<p>{escape(verdict.advice)}</p>{table.to_html(index=False, border=0)}{more}"
        f'<img alt="Differences in macro F1 of the arms, with 95 % confidence intervals" '
        f'src="data:image/svg+xml;base64,{_draw_forest(report, table["arm"].tolist())}"></div>'
    )


def _title(report: Report, results: Results) -> str:
    design = "nested cross-validation" if results.terms.nested else "given split"
    counts = f"{len(results.test):,} landmarks of {plural(results.inference.total, 'source')}"
    return f"Report {report.name}: {design}, {plural(len(results.arms), 'arm')}, {counts}"


def _table(report: Report, results: Results) -> tuple[pd.DataFrame, int]:
    """Returns baseline, control and the first strategies with formatted numbers, and the number of other arms.

    Arms that are identical to another one are left out.
    """
    rows = report.arms.frame()
    is_main = rows["role"].eq("strategy") | rows["arm"].isin([report.baseline, report.control])
    shown = rows[is_main & rows["identical_to"].isna()].head(_MOST_ARMS)
    terms = results.terms
    table = pd.DataFrame({"arm": shown["arm"], f"{terms.inner} macro F1": shown["validation"].map(score)})
    table[f"{terms.outer} macro F1"] = shown["macro_f1"].map(score)
    if shown["difference"].notna().any():
        columns = ["difference", "difference_low", "difference_high"]
        table["difference (95 % interval)"] = [_interval(*values) for values in shown[columns].to_numpy().tolist()]
        table["p (Holm)"] = [MISSING if pd.isna(p) else p_digits(p) for p in shown["p_holm"]]
    return table, len(rows) - len(shown)


def _interval(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return MISSING
    return signed(value) if pd.isna(low) else f"{signed(value)} ({signed(low)} to {signed(high)})"


def _draw_forest(report: Report, arms: Sequence[str]) -> str:
    """Returns the forest plot as SVG in base64."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A figure outside of pyplot: notebooks would show one of pyplot a second time.
    height = 0.9 + 0.24 * len(arms)
    # As text, letters take a tenth of the space that outlines do.
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7, height), layout="constrained")
        report.arms.plot(figure.subplots(), arms=arms)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return base64.b64encode(buffer.getvalue()).decode()
