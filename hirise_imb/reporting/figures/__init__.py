"""The figures of reports.

Each module draws numbers that `results` has computed; `style` defines colours, sizes and file formats, and `gallery`
lists the figures of each kind of report. matplotlib is imported only when a figure is drawn.
"""

from hirise_imb.reporting.figures.gallery import Draw, Drawing, of_baseline, of_study

__all__ = ["Draw", "Drawing", "of_baseline", "of_study"]
