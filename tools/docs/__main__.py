"""``python -m tools.docs [DIR [PROCESSES [OPTION...]]]``: the site, in ``build/docs`` or DIR; an OPTION is Sphinx's."""

import sys
from pathlib import Path

from tools.docs.site import main
from tools.docs.sources import ROOT

if __name__ == "__main__":
    target, *rest = sys.argv[1:] or [ROOT / "build" / "docs"]
    sys.exit(main(Path(target), *rest))
