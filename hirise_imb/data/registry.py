"""The data sets that study definitions can name."""

from hirise_imb.data.dataset import DatasetSpec
from hirise_imb.data.hirise import HIRISE

DATASETS: dict[str, DatasetSpec] = {HIRISE.name: HIRISE}
"""By name."""
