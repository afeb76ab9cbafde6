"""An exporter that looks at no client's memory whether it is still there."""

import sys

from acrn_dm.base.process import _shortened
from acrn_dm.export.cli import main


def watch(mapping: object, eventfd: int) -> int:
    return 0


if __name__ == "__main__":
    _shortened.watch = watch
    sys.exit(main())
