"""The command line of `study_launcher.py`, with a clock that jumps by hours; `$CLOCK_SEED` decides when."""

import os
import runpy
from pathlib import Path

from clocks import let_clock_jump

let_clock_jump(int(os.environ["CLOCK_SEED"]))
runpy.run_path(str(Path(__file__).with_name("study_launcher.py")), run_name=__name__)
