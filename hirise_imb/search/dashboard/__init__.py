"""Pictures and notes for the Optuna dashboard, and the server that shows it.

`pictures` draws the confusion matrix of each trial, `notes` describes each search, `server` runs the dashboard, and
`protection` keeps pages of other sites from using it.
"""

from hirise_imb.search.dashboard.notes import write_study_note
from hirise_imb.search.dashboard.pictures import artifacts_folder, make_publisher
from hirise_imb.search.dashboard.server import serve_dashboard

__all__ = ["artifacts_folder", "make_publisher", "serve_dashboard", "write_study_note"]
