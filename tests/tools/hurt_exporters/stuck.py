"""An exporter that does nothing for a while when a client has left."""

import sys
import time

from acrn_dm.export.cli import main
from acrn_dm.export.waiting import WaitingRoom

SECONDS = 12
gone = WaitingRoom._client_gone


def stuck(room: WaitingRoom) -> None:
    time.sleep(SECONDS)
    gone(room)


if __name__ == "__main__":
    WaitingRoom._client_gone = stuck  # type: ignore[method-assign]
    sys.exit(main())
