"""Reports: what is compared, the numbers that follow, and the summary, tables, figures and pages that show them."""

from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.records import Arm, Omitted
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.write import write_baseline, write_report

__all__ = ["Arm", "Baseline", "Omitted", "Results", "write_baseline", "write_report"]
