"""Rare classes are seen more often."""

from typing import Any

from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Sampling, SplitFileRows
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Settings

_DRAWN = ("class", "source", "progressive")


class Oversampling(TrainedStrategy):
    """The split file's own up-sampling, imbalanced-learn's, or rows drawn by class."""

    name = "oversampling"
    summary = "images of rare classes are seen more often"
    source = "Buda et al. 2018; Kang et al. 2020; Doran et al. 2020 (split file)"
    own = (
        Categorical(
            name="scheme",
            choices=(*_DRAWN, "random", "split_file"),
            default="class",
            help="draw a class, then an image; a class, a source, an image; move from natural to drawn shares; repeat "
            "images up to a ratio; the rows of the split file",
            source="Kang et al. 2020; Buda et al. 2018; Doran et al. 2020",
        ),
        Float(
            name="power",
            low=0.0,
            high=0.9,
            default=0.5,
            help="a class is drawn in proportion to n^power; 0 draws all alike, 0.5 is square-root sampling",
            source="Mahajan et al. 2018; Kang et al. 2020",
            when=("scheme", _DRAWN),
        ),
        Float(
            name="ratio",
            low=0.02,
            high=1.0,
            log=True,
            default=0.1,
            help="images of each class, of those of the largest",
            source="Buda et al. 2018",
            when=("scheme", ("random",)),
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The sampling."""
        sampling: Sampling
        scheme = settings["scheme"]
        if scheme == "split_file":
            sampling = SplitFileRows()
        elif scheme == "random":
            sampling = RandomOversampling(float(settings["ratio"]))
        else:
            power = float(settings["power"])
            sampling = ClassSampling(power, by_source=scheme == "source", progressive=scheme == "progressive")
        return {"sampling": sampling}

    def starts(self) -> list[Settings]:
        """Every scheme; classes all alike."""
        rest: list[Settings] = [{"scheme": scheme} for scheme in ("source", "progressive", "random", "split_file")]
        return [*rest, {"power": 0.0}]
