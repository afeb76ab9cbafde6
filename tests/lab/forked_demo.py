"""The demonstration's driver, whose acrn-dm is a fork: ``python -m tests.lab.forked_demo PLAN``."""

import os
import sys

from lab.demo import drive
from tests.lab import forked

if __name__ == "__main__":
    os.environ.pop("LD_PRELOAD", None)  # this process has it loaded, and what it forks; ``ip`` is to go without
    sys.exit(drive.main(start=forked.start))
