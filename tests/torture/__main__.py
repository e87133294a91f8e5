"""Runs `python -m torture`; attempts run in processes that cannot import this module."""

import sys

from torture.runner import main

if __name__ == "__main__":
    sys.exit(main())
