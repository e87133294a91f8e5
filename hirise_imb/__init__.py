"""Experiments on class imbalance for landmarks in orbital images of Mars.

    import hirise_imb as hi

    study = hi.read_report("reports/real-sample")  # or hi.run("studies/demo.toml")
    study.arms.frame()

The public names below are imported when they are first used, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hirise_imb import estimators as estimators
    from hirise_imb import forensics as forensics
    from hirise_imb import losses as losses
    from hirise_imb import metrics as metrics
    from hirise_imb import samplers as samplers
    from hirise_imb.api.comparison import Comparison
    from hirise_imb.api.models import Model, load_model
    from hirise_imb.api.report import Report, compare_reports, read_report
    from hirise_imb.api.studies import run
    from hirise_imb.config import StudyDefinition
    from hirise_imb.utils.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Model",
    "Report",
    "StudyDefinition",
    "UserError",
    "compare_reports",
    "estimators",
    "forensics",
    "load_model",
    "losses",
    "metrics",
    "read_report",
    "run",
    "samplers",
]

_ROOMS = ("estimators", "forensics", "losses", "metrics", "samplers")
"""Modules that are useful by themselves."""

_MODULES = {
    "Comparison": "hirise_imb.api.comparison",
    "Model": "hirise_imb.api.models",
    "Report": "hirise_imb.api.report",
    "StudyDefinition": "hirise_imb.config",
    "UserError": "hirise_imb.utils.errors",
    "compare_reports": "hirise_imb.api.report",
    "load_model": "hirise_imb.api.models",
    "read_report": "hirise_imb.api.report",
    "run": "hirise_imb.api.studies",
}
"""The module of each public name."""


if not TYPE_CHECKING:  # type checkers would take any name for one that exists

    def __getattr__(name: str) -> Any:  # noqa: ANN401
        """Imports a public name (PEP 562)."""
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted([*__all__, "__version__"])
