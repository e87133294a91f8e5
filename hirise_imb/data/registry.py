"""The data cards that study definitions can name."""

from hirise_imb.data.dataset import DataCard
from hirise_imb.data.hirise import HIRISE

DATASETS: dict[str, DataCard] = {HIRISE.name: HIRISE}
"""By name."""
