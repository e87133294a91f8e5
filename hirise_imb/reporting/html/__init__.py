"""The HTML and Markdown pages of reports.

`view` and its tables turn the content of a summary into cells and sentences, the templates lay them out, and `render`
fills a template with a view.
"""

from hirise_imb.reporting.html.render import render
from hirise_imb.reporting.html.view import Extras, baseline_view, study_view

__all__ = ["Extras", "baseline_view", "render", "study_view"]
