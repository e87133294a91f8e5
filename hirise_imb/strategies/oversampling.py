"""Oversampling of rare classes."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Sampling, SplitFileRows
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, integer, number


@dataclass(frozen=True)
class OversamplingParameters(OptimiserParameters):
    """Hyperparameters of oversampling."""

    scheme: Literal["class", "source", "progressive", "random", "split_file"] = choice(
        default="class",
        help="draw a class, then an image; a class, a source, an image; move from natural to drawn frequencies; repeat "
        "images up to a ratio; the rows of the split file",
        source="Kang et al. 2020; Buda et al. 2018; Doran et al. 2020",
    )
    # At 1, which is left out, images are drawn with their natural frequencies, as in the control.
    power: float = number(
        0.0,
        0.9,
        default=0.5,
        help="a class is drawn in proportion to n^power; 0 draws all classes equally, 0.5 is square-root sampling",
        source="Mahajan et al. 2018; Kang et al. 2020",
        when=("scheme", ("class", "source", "progressive")),
    )
    epochs: int = integer(
        10,
        60,
        default=30,
        help="length of the move from natural to drawn frequencies, all of which is trained",
        source="Kang et al. 2020",
        when=("scheme", ("progressive",)),
    )
    ratio: float = number(
        0.02,
        1.0,
        log=True,
        default=0.1,
        help="images of each class as a share of those of the largest class",
        source="Buda et al. 2018",
        when=("scheme", ("random",)),
    )


class OversamplingStrategy(TrainedStrategy[OversamplingParameters]):
    """Rows drawn by class, imbalanced-learn's random over-sampling, or the split file's own up-sampling."""

    name = "oversampling"
    summary = "images of rare classes are seen more often"
    family = "data"
    source = "Buda et al. 2018; Kang et al. 2020; Doran et al. 2020 (split file)"
    parameters = OversamplingParameters

    def apply(self, recipe: Recipe, parameters: OversamplingParameters) -> Recipe:
        """Returns the recipe with the sampling."""
        sampling: Sampling
        if parameters.scheme == "split_file":
            sampling = SplitFileRows()
        elif parameters.scheme == "random":
            sampling = RandomOversampling(parameters.ratio)
        else:
            by_source, progressive = parameters.scheme == "source", parameters.scheme == "progressive"
            sampling = ClassSampling(parameters.power, by_source=by_source, progressive=progressive)
            if progressive:  # stopped early, it would never reach the frequencies it moves to
                recipe = replace(recipe, monitor="none", max_epochs=parameters.epochs)
        return replace(recipe, sampling=sampling)

    def initial_points(self) -> list[Settings]:
        """Returns every other scheme, and all classes drawn equally."""
        return [
            {"scheme": "source"},
            {"scheme": "progressive"},
            {"scheme": "random"},
            {"scheme": "split_file"},
            {"power": 0.0},
        ]
