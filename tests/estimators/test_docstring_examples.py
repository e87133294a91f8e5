"""The examples in the docstrings of all public lower levels run, and give what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

PUBLIC = {
    "hirise_imb.losses": None,
    "hirise_imb.samplers": None,
    "hirise_imb.estimators": None,
    "hirise_imb.metrics": (
        "calibration_error",
        "class_scores",
        "macro_f1_score",
        "minimum_detectable_difference",
        "paired_source_bootstrap",
        "source_bootstrap",
        "source_swap_test",
    ),
    "hirise_imb.forensics": ("alignment_test", "examine_table"),
}
"""Modules, and those of their names that have an example; all if None."""


@pytest.mark.parametrize("module_name", PUBLIC)
def test_examples(module_name: str) -> None:
    module = importlib.import_module(module_name)
    report: list[str] = []
    for name in PUBLIC[module_name] or module.__all__:
        item = getattr(module, name)
        tests = [test for test in doctest.DocTestFinder(recurse=False).find(item, name) if test.examples]
        assert tests, f"{name} has no example"
        for test in tests:
            test.globs = dict(vars(module))
            doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)
