"""Norms of class weights made alike."""

from typing import Any

from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Settings


class TauNorm(PosthocStrategy):
    """Each class's weights are divided by their norm to the power tau; the bias is dropped, or divided likewise.

    The paper's features are not centred and it drops the bias. Those of a head with batch normalisation are centred, so
    that its biases carry the prior: without them `other` is as likely as any class.
    """

    name = "tau_norm"
    summary = "weights of the control's head are divided by a power of their norm"
    source = "Kang et al. 2020"
    own = (
        Float(
            name="tau",
            low=0.05,
            high=2.0,
            default=1.0,
            help="the power; 1 makes all norms alike",
            source="Kang et al. 2020",
        ),
        Categorical(
            name="bias",
            choices=("divided", "dropped"),
            default="divided",
            help="divided by the same power of the norm, or dropped as the paper has it",
            source="Kang et al. 2020 (learnable weight scaling divides it)",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The power."""
        return {"weight_norm": float(settings["tau"]), "keep_bias": settings["bias"] == "divided"}

    def starts(self) -> list[Settings]:
        """Half of it; the paper's."""
        return [{"tau": 0.5}, {"bias": "dropped"}]
