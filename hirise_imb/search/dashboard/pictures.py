"""The confusion matrix of each trial as artifacts of the dashboard: a picture and a table."""

from __future__ import annotations

import csv
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import FrozenTrial

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.targets import MACRO_F1
from hirise_imb.search.database import Storage
from hirise_imb.search.trial_store import PublishTrial
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.files import ensure_folder

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

PICTURE = "confusion.png"
TABLE = "confusion.csv"

_CELL = 60
"""Side of a cell in pixels."""
_LEFT = 104
"""Width of the class names to the left of the cells in pixels."""
_TOP = 60
"""Height of the title above the cells in pixels."""
_RIGHT, _BOTTOM = 16, 44
"""Width of the margin on the right, and height of the column names below the cells, in pixels."""
_TEXT_COLOUR = "#111827"
_LINE_COLOUR = "#e5e7eb"
_DARK_SHARE = 0.55
"""Share from which a cell is so dark that its text is white."""


def artifacts_folder(out: Path) -> Path:
    """Returns the folder of the artifacts of all studies below `out`."""
    return out / "studies" / "artifacts"


def make_publisher(storage: Storage, out: Path, classes: ClassSet, label: str = MACRO_F1.label) -> PublishTrial:
    """Returns a function that adds the confusion matrix of a recipe, the mean over seeds, to its trial.

    Args:
        storage: database of the trials.
        out: folder that contains `studies/`.
        classes: classes of the data, which label rows and columns.
        label: name of the target metric.

    Raises:
        UserError: the folder of the artifacts can't be written to.
    """
    artifacts = FileSystemArtifactStore(ensure_folder(artifacts_folder(out)))

    def publish(trial: FrozenTrial, validation: CrossValidation) -> None:
        title = f"Trial {trial.number}: {label} {validation.score:.3f} on held-out landmarks"
        confusion = validation.confusions.mean(axis=0)
        with tempfile.TemporaryDirectory() as folder:
            picture, table = Path(folder, PICTURE), Path(folder, TABLE)
            _draw_confusion(confusion, classes, title).save(picture)
            _write_table(confusion, classes, table)
            for path in (picture, table):
                upload_artifact(artifact_store=artifacts, file_path=str(path), study_or_trial=trial, storage=storage)

    return publish


def _draw_confusion(confusion: NDArray[np.float64], classes: ClassSet, title: str) -> Image:
    """Draws a confusion matrix: the colour is the share of the true class; the text adds per cent and count.

    Args:
        confusion: mean counts over seeds, shape (n_classes, n_classes); rows are true classes.
        classes: names of rows and columns.
        title: first line of the picture.
    """
    # Drawn with Pillow in some 15 ms; matplotlib, which draws the figures of reports, would take 350 ms per trial.
    import matplotlib as mpl
    from PIL import Image, ImageDraw

    totals = confusion.sum(axis=1)
    shares = confusion / np.maximum(totals, 1)[:, np.newaxis]
    colours = mpl.colormaps["Blues"](shares, bytes=True).tolist()
    side = _CELL * len(classes)
    image = Image.new("RGB", (_LEFT + side + _RIGHT, _TOP + side + _BOTTOM), "white")
    draw = ImageDraw.Draw(image)
    small, large = _load_font(12), _load_font(14)
    legend = "rows: true class (landmarks); columns: predicted class; cells: % of the row, mean count"
    draw.text((8, 8), title, _TEXT_COLOUR, large)
    draw.text((8, 32), legend, _TEXT_COLOUR, small)
    draw.rectangle((_LEFT - 1, _TOP - 1, _LEFT + side - 1, _TOP + side - 1), _LINE_COLOUR)
    for row, name in enumerate(classes.names):
        middle = _CELL * row + _CELL // 2
        row_label, column_label = f"{name}\n({totals[row]:.0f})", name.replace(" ", "\n")
        draw.multiline_text((_LEFT - 8, _TOP + middle), row_label, _TEXT_COLOUR, small, "rm", align="right")
        draw.multiline_text((_LEFT + middle, _TOP + side + 6), column_label, _TEXT_COLOUR, small, "ma", align="center")
        for column, count in enumerate(confusion[row]):
            x, y = _LEFT + _CELL * column, _TOP + _CELL * row
            draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), tuple(colours[row][column]))
            if count > 0 or row == column:
                share = shares[row, column]
                text = f"{100 * share:.0f}\n{_format_count(count)}"
                colour = "white" if share > _DARK_SHARE else _TEXT_COLOUR
                draw.multiline_text((x + _CELL // 2, y + _CELL // 2), text, colour, small, "mm", align="center")
    return image


@cache
def _load_font(size: int) -> FreeTypeFont:
    """Loads the font of the reports' figures, which comes with matplotlib."""
    import matplotlib as mpl
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _format_count(count: float, decimals: int = 1) -> str:
    """Returns a mean count with as many decimals as it needs, and `decimals` at most."""
    return str(int(count)) if count == int(count) else f"{count:.{decimals}f}"


def _write_table(confusion: NDArray[np.float64], classes: ClassSet, path: Path) -> None:
    """Writes one row for each pair of classes, with the column names of the tables in reports."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("true_class", "predicted_class", "count"))
        for true_class, counts in zip(classes.names, confusion.tolist(), strict=True):
            for predicted_class, count in zip(classes.names, counts, strict=True):
                writer.writerow((true_class, predicted_class, _format_count(count, 3)))
