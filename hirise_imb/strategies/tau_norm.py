"""Normalised class weights of the head."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice, number


@dataclass(frozen=True)
class TauNormParameters(Parameters):
    """Hyperparameters of tau-normalisation."""

    tau: float = number(
        0.05,
        2.0,
        default=1.0,
        help="power of the norm that weights are divided by; 1 makes all norms equal",
        source="Kang et al. 2020",
    )
    bias: Literal["divided", "dropped"] = choice(
        default="divided",
        help="divided by the same power of the norm, or dropped as in the paper",
        source="Kang et al. 2020 (learnable weight scaling divides it)",
    )


class TauNormStrategy(PosthocStrategy[TauNormParameters]):
    """A class's weights are divided by their norm to the power tau; the bias is divided by the same power, or dropped.

    The paper drops the bias; its features are not centred. After batch normalisation they are, so
    that the biases carry the prior: without them the majority class is as likely as any other.
    """

    name = "tau_norm"
    summary = "weights of the control's head are divided by a power of their norm"
    family = "after training"
    source = "Kang et al. 2020"
    parameters = TauNormParameters

    def apply(self, recipe: Recipe, parameters: TauNormParameters) -> Recipe:
        """Returns the recipe with tau-normalised weights."""
        return replace(recipe, weight_norm=parameters.tau, keep_bias=parameters.bias == "divided")

    def initial_points(self) -> list[Settings]:
        """Returns half the power, and the paper's version."""
        return [{"tau": 0.5}, {"bias": "dropped"}]
