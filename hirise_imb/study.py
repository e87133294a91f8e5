"""The program: `python -m hirise_imb.study`, and the console script `hirise-imb`."""

import sys
from collections.abc import Sequence

from hirise_imb.utils import interruption


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see `hirise_imb.cli.main`; an interruption ends it, and the process, at any moment."""
    # Before the command line is imported, which takes long enough to be interrupted.
    interruption.install_handlers()
    try:
        from hirise_imb.cli.main import main as run_command

        code = run_command(arguments)
    except BaseException as error:
        if not interruption.is_interruption(error):
            raise
        interruption.report()
        code = interruption.EXIT_CODE
    finally:
        interruption.ignore_signals()
    if interruption.is_requested():
        interruption.end_process(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
