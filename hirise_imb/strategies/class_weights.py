"""Class weights in the loss."""

from typing import Any

from hirise_imb.imbalance.class_weights import ClassWeights, EffectiveNumber, InversePower
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Settings


class ClassWeighting(TrainedStrategy):
    """Weights from none to beyond inverse frequency, or by effective numbers."""

    name = "class_weights"
    summary = "rows of rare classes weigh more in the loss"
    source = "King & Zeng 2001; Cui et al. 2019"
    own = (
        Categorical(
            name="scheme",
            choices=("inverse_power", "effective_number"),
            default="inverse_power",
            help="n^-power, or 1 / effective number",
            source="King & Zeng 2001; Cui et al. 2019",
        ),
        Categorical(
            name="unit",
            choices=("landmarks", "sources"),
            default="landmarks",
            help="what n counts",
            source="Kish 1965: landmarks of one source are not independent",
        ),
        Float(
            name="power",
            low=0.0,
            high=1.5,
            default=1.0,
            help="0 weighs classes alike, 1 by inverse frequency",
            source="King & Zeng 2001",
            when=("scheme", ("inverse_power",)),
        ),
        Float(
            name="one_minus_beta",
            low=1e-4,
            high=1e-1,
            log=True,
            default=1e-3,
            help="how far beta is from 1: the smaller, the nearer to inverse frequency",
            source="Cui et al. 2019",
            when=("scheme", ("effective_number",)),
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The weights."""
        weights: ClassWeights
        unit: Any = settings["unit"]
        if settings["scheme"] == "inverse_power":
            weights = InversePower(float(settings["power"]), unit)
        else:
            weights = EffectiveNumber(1 - float(settings["one_minus_beta"]), unit)
        return {"class_weights": weights}

    def starts(self) -> list[Settings]:
        """The square root of inverse frequency; the effective numbers of Cui et al."""
        return [{"power": 0.5}, {"scheme": "effective_number"}]
