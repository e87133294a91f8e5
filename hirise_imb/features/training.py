"""shim"""

import numpy as np

from hirise_imb.features.landmarks import LandmarkFeatures


class TrainingFeatures(LandmarkFeatures):
    def append(self, f, l):
        return TrainingFeatures(
            np.concatenate([self.features, f]),
            np.concatenate([self.labels, l]),
            np.concatenate([self.sources, np.full(len(l), -1)]),
            self.classes,
        )
