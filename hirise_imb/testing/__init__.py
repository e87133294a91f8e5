"""Contract checks that every strategy and every backbone must pass, for this package's tests and for plug-ins.

    @pytest.mark.parametrize("check", strategy_checks(MyStrategy()), ids=str)
    def test_contract(check: Check) -> None:
        check()

Without pytest, `check_strategy(MyStrategy())` and `check_backbone(CARD)` run all checks.
"""

from hirise_imb.testing.backbones import backbone_checks, check_backbone
from hirise_imb.testing.checks import Check
from hirise_imb.testing.strategies import check_strategy, strategy_checks

__all__ = ["Check", "backbone_checks", "check_backbone", "check_strategy", "strategy_checks"]
