"""The flush before an image is closed: on a thread of its own, for a host that does not come back from it.

It is for what the guest never asked to have flushed; its own flushes are kept already.
"""

import logging
import threading
import time

import attrs

from acrn_dm.base.records import define
from acrn_dm.devices.virtio_blk.image.backend import Image

log = logging.getLogger(__name__)

FLUSH_S = 10.0


@define(eq=False)
class LastFlush:
    """Of *image*; *name* is the device's."""

    name: str
    image: Image
    thread: threading.Thread = attrs.field(init=False)
    _until: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._until = time.monotonic() + FLUSH_S
        self.thread = threading.Thread(target=self._flush, name=f"{self.name}-flush", daemon=True)
        self.thread.start()

    def wait(self) -> bool:
        """Wait until it is done, or FLUSH_S seconds from its beginning are over; return whether it is done."""
        self.thread.join(max(0.0, self._until - time.monotonic()))
        return not self.thread.is_alive()

    def _flush(self) -> None:
        try:
            self.image.flush()
        except OSError as e:
            log.error("%s: the last flush: %s", self.name, e)
