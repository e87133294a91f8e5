"""Several heads, predicted together."""

from typing import Any

from hirise_imb.models.closed_form import Discriminant, Logistic
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Categorical, Integer, Settings

_ALSO = {"seeds": (), "heads": (Discriminant(0.1, 1.0), Logistic(1e-2, 0.5))}


class Ensemble(PosthocStrategy):
    """Log probabilities are averaged over fits of the control with several seeds, or over heads of several kinds.

    To be compared with the baseline that averages seeds: averaging takes away what differs between seeds by chance.
    """

    name = "ensemble"
    summary = "the control's fits with several seeds, or heads of several kinds, are averaged"
    source = "Lakshminarayanan et al. 2017"
    own = (
        Categorical(
            name="kind",
            choices=tuple(_ALSO),
            default="seeds",
            help="the control alone, or beside discriminant analysis and logistic regression",
            source="Lakshminarayanan et al. 2017; Dietterich 2000",
        ),
        Integer(
            name="members",
            low=1,
            high=8,
            default=5,
            help="fits of the control, with seeds of their own",
            source="Lakshminarayanan et al. 2017",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """Members and further heads."""
        return {"members": int(settings["members"]), "also": _ALSO[str(settings["kind"])]}

    def starts(self) -> list[Settings]:
        """Three heads."""
        return [{"kind": "heads", "members": 1}]
