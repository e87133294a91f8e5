"""Runs studies from scripts and notebooks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hirise_imb.config import StudyDefinition, build_definition, load_definition

if TYPE_CHECKING:
    from hirise_imb.api.report import Report


def run(
    definition: str | Path | Mapping[str, Any] | StudyDefinition | None = None,
    *,
    out: str | Path = ".",
    workers: int = 1,
    storage: str | None = None,
    timeout: float | None = None,
    pictures: str = "auto",
    replace: bool = False,
    save_models: str | None = None,
    mlflow: str | None = None,
    **overrides: Any,  # noqa: ANN401
) -> Report:
    """Runs a study, or continues one, and writes its report, as the command `hirise-imb run` does.

    Features, finished trials and finished fits are not computed again. Progress goes to the logger `hirise_imb`: call
    `logging.basicConfig(level=logging.INFO)` to see it. With several workers, a script needs the usual guard
    `if __name__ == "__main__":`, because the processes import it again.

    Args:
        definition: path of a TOML file, keys of a definition (those of `StudyDefinition`, with `strategies` as a list
            of names or a mapping from names to overrides of their hyperparameters), or a `StudyDefinition`; None for
            the demo on synthetic landmarks.
        out: folder that contains `studies/` (databases and finished fits) and `reports/`.
        workers: number of processes that search on this machine.
        storage: address of the database; None for a file in `out`.
        timeout: seconds after which no further trials are started; None for no limit.
        pictures: whether the page shows landmarks: `auto` (where their licence is known), `yes` or `no`.
        replace: whether a report with more trials or more refits may be replaced.
        save_models: `none`, `chosen` (those of the baseline and of the arms that validation chose) or `all`; None for
            `chosen` where the study has models.
        mlflow: tracking URI of MLflow to which the report is exported; None for none.
        **overrides: keys of a definition that take precedence, such as `trials=20`.

    Raises:
        UserError: the definition can't be run here; a later run can use everything that was written before.
    """
    from hirise_imb.api.report import Report
    from hirise_imb.pipeline.mlflow_export import check_mlflow, export_report
    from hirise_imb.pipeline.runner import RunOptions, run_study

    options = RunOptions(storage, workers, timeout, pictures, replace, save_models)
    study = _read_definition(definition, overrides)
    if mlflow is not None:
        check_mlflow(mlflow)
    results, page = run_study(study, Path(out), options)
    if mlflow is not None:
        export_report(page.parent, mlflow)
    return Report(results, page.parent)


def _read_definition(
    definition: str | Path | Mapping[str, Any] | StudyDefinition | None, overrides: Mapping[str, Any]
) -> StudyDefinition:
    # Paths are strings in a definition.
    options = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    if isinstance(definition, str | Path):
        return load_definition(Path(definition).expanduser(), options)
    keys = tomllib.loads(definition.to_toml()) if isinstance(definition, StudyDefinition) else dict(definition or {})
    if isinstance(options.get("strategies"), Mapping):
        keys["strategies"] = options.pop("strategies")
    return build_definition(keys, options)
