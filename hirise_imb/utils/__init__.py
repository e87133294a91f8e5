"""Helpers that know nothing about landmarks or classifiers: errors, files, progress, environment.

Any room may import them.
"""

from hirise_imb.utils.errors import FitFailed, NotApplicable, NotFinite, UserError

__all__ = ["FitFailed", "NotApplicable", "NotFinite", "UserError"]
