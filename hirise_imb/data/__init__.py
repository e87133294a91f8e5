"""What a data set is, where its files are, and how its landmarks are split.

The only room that knows the classes, the image size or the file names of a particular data set: all others read them
from its `DatasetSpec`.
"""

from hirise_imb.data.dataset import SPLITS, ClassSet, DataCard, DatasetSpec
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.registry import DATASETS

__all__ = ["DATASETS", "HIRISE", "SPLITS", "ClassSet", "DataCard", "DatasetSpec"]
