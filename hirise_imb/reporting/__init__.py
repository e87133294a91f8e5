"""Reports of studies: the results that are compared, and the summary, tables, figures and pages that show them.

`results` computes every number from stored predictions, `summary` writes the numbers as plain values, and `html` and
`figures` only show them. `read` and `write` convert between results and the folder of a report.
"""

from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.records import Arm, Omitted
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.write import write_baseline, write_report

__all__ = ["Arm", "Baseline", "Omitted", "Results", "write_baseline", "write_report"]
