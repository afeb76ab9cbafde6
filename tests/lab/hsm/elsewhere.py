"""acrn-dm in another folder: ``python -m tests.lab.hsm.elsewhere FOLDER ARGUMENTS...``."""

import os
import sys

from acrn_dm.cli.app import main

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
