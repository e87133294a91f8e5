"""Calibration."""

from typing import Any

from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Categorical, Settings


class TemperatureScaling(PosthocStrategy):
    """The control's logits are divided by a temperature, fitted on validation; classes may get offsets too."""

    name = "temperature"
    summary = "the control's probabilities are calibrated"
    source = "Guo et al. 2017; Alexandari et al. 2020"
    own = (
        Categorical(
            name="kind",
            choices=("temperature", "bias_corrected"),
            default="temperature",
            help="a temperature alone changes no decision; with offsets of classes it may",
            source="Guo et al. 2017; Alexandari et al. 2020",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The adjustment."""
        return {"adjustment": Temperature(bias=settings["kind"] == "bias_corrected")}

    def starts(self) -> list[Settings]:
        """With offsets."""
        return [{"kind": "bias_corrected"}]
