"""An exporter whose queues take no more kicks after some."""

import itertools
import sys

from acrn_dm.backends.vbs_u import QueueServer
from acrn_dm.export.cli import main

KICKS = 60
serve, kicks = QueueServer._serve, itertools.count()


def deaf(server: QueueServer) -> None:
    if next(kicks) < KICKS:
        serve(server)


if __name__ == "__main__":
    QueueServer._serve = deaf  # type: ignore[method-assign]
    sys.exit(main())
