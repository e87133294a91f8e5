"""Export of a saved model as one network from pixels to calibrated probabilities, for other runtimes.

The network is built once in Keras and written in one of several formats; the runtime of the format must give the same
probabilities before an export is kept.
"""

from hirise_imb.export.formats import FORMATS, ExportFormat

__all__ = ["FORMATS", "ExportFormat"]
