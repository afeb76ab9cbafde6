"""``python -m tools.docs [DIR]``: the site, in ``build/docs`` or DIR."""

import sys
from pathlib import Path

from tools.docs.site import main
from tools.docs.sources import ROOT

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
