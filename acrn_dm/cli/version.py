"""The version: one line."""

import os
import sys

from acrn_dm.base.files.installed import version_of


def version_line() -> str:
    """One line: our version, Python's, and the machine's architecture."""
    python = sys.version.split(" ", 1)[0]
    return f"DM: acrn-dm {version_of('acrn-dm') or '(not installed)'}, Python {python}, {os.uname().machine}"
