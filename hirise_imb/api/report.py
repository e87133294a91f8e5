"""Reports for scripts and notebooks: read from their folders, compared with each other, shown and opened."""

from __future__ import annotations

import tomllib
import webbrowser
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.api.comparison import Comparison
from hirise_imb.api.displays import find_arm
from hirise_imb.api.score_displays import Arms, Confusion, PerClass, Scores
from hirise_imb.api.study_displays import Data, Selection, Sources, Trials
from hirise_imb.pipeline import rebuild
from hirise_imb.pipeline.compare import merge_reports, name_folder
from hirise_imb.reporting import tables, verdict
from hirise_imb.reporting.read import read_report as read_results
from hirise_imb.reporting.results import GIVEN_SPLIT_FOLDER, Results
from hirise_imb.reporting.verdict import Verdict
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from hirise_imb.api.models import Model


class Report:
    """The report of a study, of a comparison of reports, or of a reference run.

    All numbers are computed from the stored predictions when they are first used. In a notebook, a report shows its
    verdict, its arms and a forest plot of their differences.
    """

    def __init__(self, results: Results, folder: Path | None = None) -> None:
        """Stores results, and the folder that they were read from or written to, if there is one."""
        self._results = results
        self.folder = folder

    @property
    def name(self) -> str:
        """Name of the study or comparison."""
        return self._results.name

    @property
    def design(self) -> str:
        """How arms were evaluated: `nested-cv` or `given-split`."""
        return "nested-cv" if self._results.terms.nested else "given-split"

    @property
    def setting(self) -> str:
        """One or two sentences that say what was run."""
        return self._results.setting

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        return self._results.classes.names

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The definition of the study, as in `study.toml`; a comparison has those of its reports."""
        return tomllib.loads(self._results.study_toml)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, git revision, digests and wall times in seconds."""
        return self._results.environment

    @cached_property
    def verdict(self) -> Verdict:
        """The answer in a sentence, which arm to choose, and the reasons for the uncertainty."""
        return verdict.verdict(self._results)

    @property
    def baseline(self) -> str:
        """Name of the reference run, with which all arms are compared."""
        return self._results.reference

    @property
    def control(self) -> str | None:
        """Name of the tuned recipe without a remedy; None without one, as in a comparison of reports."""
        return self._results.control.name if self._results.control else None

    @property
    def chosen(self) -> str | None:
        """Name of the strategy with the best validation score; None without one."""
        return self._results.chosen.name if self._results.chosen else None

    @property
    def arms(self) -> Arms:
        """The arms: macro F1, its uncertainty, and its difference from the control or the baseline."""
        return Arms(self._results)

    @property
    def scores(self) -> Scores:
        """All registered scores of the arms."""
        return Scores(self._results)

    @property
    def per_class(self) -> PerClass:
        """Precision, recall and F1 of each class."""
        return PerClass(self._results)

    @property
    def trials(self) -> Trials:
        """The finished trials of all searches."""
        return Trials(self._results)

    @property
    def selection(self) -> Selection:
        """What selection gained on validation and lost on the tested landmarks."""
        return Selection(self._results)

    @property
    def sources(self) -> Sources:
        """Recall in each tested source of each class."""
        return Sources(self._results)

    @property
    def data(self) -> Data:
        """Counts of sources, landmarks, images and rows by split and class."""
        return Data(self._results)

    def confusion(self, arm: str) -> Confusion:
        """Returns the confusion matrix of an arm, mean over seeds.

        Raises:
            UserError: there is no such arm.
        """
        return Confusion(self._results, arm)

    def compare(self, arm: str, other: str | None = None) -> Comparison:
        """Compares two arms of the report, also a pair that the report did not test.

        The p value of the result is that of ONE swap test, not adjusted for others; `arms.frame()` has the adjusted
        ones of the pairs that the report tested.

        Args:
            arm: name of an arm.
            other: name of the arm that it is compared with; None for the one of the primary contrast, which is the
                control that averages as many fits, or the baseline without a control.

        Raises:
            UserError: there is no such arm, or both are the same.
        """
        if other is None:
            results = self._results
            other = results.other_of(find_arm(results, arm), results.contrasts[0]) or results.reference
        return Comparison(self._results, arm, other)

    def predictions(self, arm: str, *, average: bool = False) -> pd.DataFrame:
        """Returns the predictions of the tested landmarks, one image for each.

        Columns: image, landmark, source, true_class, predicted_class, one probability for each class (`p_` and the name
        of the class) and seed.

        Args:
            arm: name of an arm.
            average: False for a row for each image and seed, as stored in the report. True for a row for each image,
                with probabilities that are means over the seeds: those of an ensemble, whose scores differ from the
                reported ones, which are means of the scores of single seeds.

        Raises:
            UserError: there is no such arm.
        """
        results = self._results
        rows = tables.predictions(results, find_arm(results, arm))
        if not average:
            return rows
        columns = tables.probability_columns(results.classes)
        identity = ["image", "landmark", "source", "true_class"]
        means = rows.groupby(identity, sort=False, as_index=False)[columns].mean()
        predicted = [results.classes.names[label] for label in means[columns].to_numpy().argmax(axis=1)]
        means.insert(len(identity), "predicted_class", predicted)
        return means

    @cached_property
    def given_split(self) -> Report | None:
        """The report of the given split, which that of a nested cross-validation may contain; otherwise None."""
        if self._results.given_split is None:
            return None
        folder = None if self.folder is None else self.folder / GIVEN_SPLIT_FOLDER
        return Report(self._results.given_split, folder)

    @property
    def page(self) -> Path | None:
        """Path of the page; None for a comparison that was not written."""
        return None if self.folder is None else self.folder / "report.html"

    def open(self) -> None:
        """Opens the page in the browser.

        Raises:
            UserError: the report was not written, or its page is missing.
        """
        if self.page is None:
            raise UserError("This comparison was not written: give compare_reports a folder with out=.")
        if not self.page.is_file():
            raise UserError(f"{self.page} is missing: rebuild it with `hirise-imb report {self.folder}`.")
        webbrowser.open(self.page.resolve().as_uri())

    def load_model(self, arm: str) -> Model:
        """Loads a model that the study saved with its report.

        Raises:
            UserError: there is no such arm, or no model of it was saved.
        """
        from hirise_imb.api.models import load_model

        find_arm(self._results, arm)
        if self.folder is None:
            raise UserError("A comparison that was not written has no models: read the report of one study.")
        return load_model(self.folder / "models" / arm)

    def export_to_mlflow(self, uri: str) -> str:
        """Exports the report to MLflow: one run for each arm inside a run of the report; returns its run id.

        A report that was exported before is updated, or skipped if nothing has changed.

        Args:
            uri: tracking URI of MLflow, such as `http://localhost:5000` or `sqlite:///mlflow.db`.

        Raises:
            UserError: the extra `mlflow` is not installed, MLflow can't be reached, or the report was not written.
        """
        from hirise_imb.pipeline.mlflow_export import export_report

        if self.folder is None:
            raise UserError("This comparison was not written: give compare_reports a folder with out=.")
        return export_report(self.folder, uri)

    def __repr__(self) -> str:
        """Returns the verdict and the arms as text."""
        from hirise_imb.api.notebook import describe_report

        return describe_report(self, self._results)

    def _repr_html_(self) -> str:
        """Returns the verdict, the arms and a forest plot for notebooks."""
        from hirise_imb.api.notebook import render_report

        return render_report(self, self._results)


def read_report(folder: str | Path) -> Report:
    """Reads the report of a study, a comparison or a reference run.

    Args:
        folder: folder of the report, or its page.

    Raises:
        UserError: there is no complete report, or a file differs from the one that was written with it.
    """
    place = Path(folder).expanduser()
    if place.is_file():
        place = place.parent
    return Report(read_results(place), place)


def compare_reports(
    reports: Sequence[str | Path | Report], *, name: str | None = None, out: str | Path | None = None
) -> Report:
    """Compares reports that were tested on the same landmarks; every arm against the baseline of the first.

    Args:
        reports: reports, or their folders.
        name: name of the comparison; None joins the names of the folders.
        out: folder in which the report of the comparison is written to `reports/`; None writes nothing.

    Returns:
        The report of the comparison, whose arms are called `report/arm`.

    Raises:
        UserError: the reports can't be compared, or the name is invalid or taken by another kind of report.
    """
    folders = []
    for report in reports:
        folder = report.folder if isinstance(report, Report) else Path(report).expanduser()
        if folder is None:
            raise UserError("A comparison that was not written can't be compared: name the reports that it compares.")
        folders.append(folder)
    if out is not None:
        results, page = rebuild.compare_reports(folders, name, Path(out))
        return Report(results, page.parent)
    return Report(merge_reports(folders, "-vs-".join(map(name_folder, folders)) if name is None else name))
