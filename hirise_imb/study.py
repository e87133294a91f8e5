"""`python -m hirise_imb.study`: the same as the console script `hirise-imb`."""

import sys

from hirise_imb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
