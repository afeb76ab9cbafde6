"""Where the lab keeps its things: below build/ of the checkout, wherever that is. No other module of the lab knows."""

import os
import re
import shutil
from pathlib import Path

from acrn_dm.testing.guest import places

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
LAB = Path(os.environ.setdefault(places.HOME, str(BUILD / "lab")))  # the outer VM can write there, at this same path
# A test run has parts with an outer VM each.
os.environ.setdefault(places.CONSOLES, str(LAB / "consoles" / os.environ.get("LAB_PART", "")))


def empty_scratch(folder: str, test: str) -> Path:
    """An empty folder below build/lab for the test of that name."""
    scratch = LAB / folder / re.sub(r"\W+", "-", test)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch
