"""Tables, figures and the page of a study."""

from hirise_imb.reporting.results import Arm, Results
from hirise_imb.reporting.write import write_report

__all__ = ["Arm", "Results", "write_report"]
