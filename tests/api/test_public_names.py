"""The public names of the package are imported when they are used, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hirise_imb as hi

HEAVY = ("tensorflow", "keras", "pandas", "matplotlib", "numpy", "optuna", "scipy", "sklearn", "mlflow")


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a new process has imported after some code."""
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import hirise_imb as hi\nimport hirise_imb.api\ndir(hi)\nhi.UserError") == set()


def test_reading_reports_and_models_needs_no_tensorflow_and_draws_nothing() -> None:
    code = "import hirise_imb as hi\nhi.read_report, hi.compare_reports, hi.load_model, hi.run, hi.Report"
    assert not loaded_after(code) & {"tensorflow", "keras", "matplotlib", "mlflow"}


def test_every_public_name_is_there() -> None:
    assert all(getattr(hi, name).__doc__ for name in hi.__all__)
    assert set(hi.__all__) < set(dir(hi))
    with pytest.raises(AttributeError, match="no_such_name"):
        hi.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_an_error_of_the_user_is_the_one_that_the_rooms_raise() -> None:
    from hirise_imb.utils.errors import UserError

    assert hi.UserError is UserError
