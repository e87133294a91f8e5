"""Rows made up between landmarks of rare classes."""

from typing import Any

from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Integer, Settings


class Synthetic(TrainedStrategy):
    """SMOTE and its kin on pooled features, between landmarks and inside the fold."""

    name = "synthetic"
    summary = "features of rare classes are made up between those of landmarks"
    source = "Chawla et al. 2002; Han et al. 2005; He et al. 2008"
    own = (
        Categorical(
            name="kind",
            choices=("smote", "borderline_smote", "adasyn"),
            default="smote",
            help="between any neighbours; from those near other classes; more where other classes are near",
            source="Chawla et al. 2002; Han et al. 2005; He et al. 2008",
        ),
        Integer(
            name="neighbours",
            low=1,
            high=7,
            default=2,
            help="of its class that a landmark is joined with; a class with no more landmarks can't be lifted",
            source="Chawla et al. 2002",
        ),
        Float(
            name="ratio",
            low=0.05,
            high=1.0,
            log=True,
            default=0.5,
            help="landmarks and made-up rows of each class, of the landmarks of the largest",
            source="Chawla et al. 2002",
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The synthesis."""
        kind: Any = settings["kind"]
        return {"synthesis": SyntheticOversampling(kind, float(settings["ratio"]), int(settings["neighbours"]))}

    def starts(self) -> list[Settings]:
        """The kinds; the papers' five neighbours, which need six landmarks of each class."""
        return [{"kind": "borderline_smote"}, {"kind": "adasyn"}, {"neighbours": 5}]
