"""The command line of `study_launcher.py`, with a clock that jumps by hours; `$CLOCK_SEED` decides when.

Worker processes that a study starts import this file too.
"""

import os
import sys

import study_launcher  # noqa: F401  (it prepares the command line)
from clocks import let_clock_jump
from handmade import without_figures

import hirise_imb.pipeline.runner  # noqa: F401  (its modules get the clock)
from hirise_imb.cli import main

let_clock_jump(int(os.environ["CLOCK_SEED"]))

if __name__ == "__main__":
    with without_figures():
        sys.exit(main.main())
