"""``python -m acrn_dm``."""

import sys

from acrn_dm.cli import main

if __name__ == "__main__":
    sys.exit(main())
