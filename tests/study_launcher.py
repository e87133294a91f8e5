"""The command line as tests of several processes run it: with the toy backbone, a shorter grace, and blank figures.

No trial is trained while the file `$HOLD` exists, so that each process gets its trial, however long it takes to start.
After as many images or trials as `$STOP_AFTER` says ("40 images", "4 trials"), a process waits to be killed.
Worker processes that a study starts import this file too.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb import study
from hirise_imb.backbones import BACKBONES
from hirise_imb.data.images import decode_image
from hirise_imb.features import extraction
from hirise_imb.recipe import Recipe
from hirise_imb.search import leases
from hirise_imb.testing.toy import TOY
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation, Trainer

BACKBONES[TOY.name] = TOY
leases.Leases.__init__.__kwdefaults__ = {"interval": 0.5, "grace": float(os.environ["GRACE"])}
cross_validate = Trainer.cross_validate
NUMBER, _, UNIT = os.environ.get("STOP_AFTER", "").partition(" ")
COUNTER = itertools.count()


def stop_after_enough(unit: str) -> None:
    """Waits forever if there were enough images or trials already."""
    if unit == UNIT and next(COUNTER) >= int(NUMBER):
        threading.Event().wait()


def decode_image_or_stop(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    stop_after_enough("images")
    return decode_image(path, shape)


def cross_validate_when_allowed(
    self: Trainer, recipe: Recipe, seeds: Sequence[int], on_epoch: OnEpoch | None = None, first_assignment: int = 0
) -> CrossValidation:
    if on_epoch:
        stop_after_enough("trials")
    while os.environ["HOLD"] and on_epoch and Path(os.environ["HOLD"]).exists():
        time.sleep(0.05)
    return cross_validate(self, recipe, seeds, on_epoch, first_assignment)


Trainer.cross_validate = cross_validate_when_allowed  # type: ignore[method-assign]
extraction.decode_image = decode_image_or_stop  # type: ignore[attr-defined]

if __name__ == "__main__":
    from handmade import without_figures

    with without_figures():
        sys.exit(study.main())
