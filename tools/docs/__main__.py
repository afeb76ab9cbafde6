"""``python -m tools.docs [DIR [PROCESSES]]``: the site, in ``build/docs`` or DIR."""

import sys
from pathlib import Path

from tools.docs.site import main
from tools.docs.sources import ROOT

if __name__ == "__main__":
    target, *processes = sys.argv[1:] or [ROOT / "build" / "docs"]
    sys.exit(main(Path(target), *processes))
