"""``python -m tests.tools.forgetful_disk MODE FAULT``: ``tools.disk_kill`` with a disk that forgets; prints the losses.

A process of its own, because the tool forks and a test's process has threads.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from acrn_dm._fastring import Chain
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.trust import Trust
from acrn_dm.devices.virtio_blk.request import Op, Request, Status
from acrn_dm.virtio.queue import Queue
from tools import disk_kill

KILLS = 40  # of which one at least must catch it


def early() -> None:
    """Writes are acknowledged before they are done."""
    real = BlkDevice._transfer

    def transfer(self: BlkDevice, queue: Queue, chain: Chain, request: Request) -> None:
        image = self.image
        assert image is not None
        if request.op is not Op.WRITE:
            real(self, queue, chain, request)
            return
        data, offset = chain.read(chain.readable_bytes), request.extents[0].offset
        self._complete(queue, chain, Status.OK, 0)
        queue.flush()
        queue.loop.call_later(0.002, lambda: image.write([memoryview(data)], offset, durable=False))

    BlkDevice._transfer = transfer  # type: ignore[method-assign]


def volatile() -> None:
    """Writes are never durable, whatever the mode."""
    real = Image.write

    def write(self: Image, views: Any, offset: int, *, durable: bool) -> None:
        real(self, views, offset, durable=False)

    Image.write = write  # type: ignore[method-assign]


def no_flush() -> None:
    """A flush does nothing."""
    Trust.sync = lambda self: None  # type: ignore[method-assign]


def main() -> None:
    """See the module."""
    mode, fault = sys.argv[1:]
    {"early": early, "volatile": volatile, "no_flush": no_flush}[fault]()
    with tempfile.TemporaryDirectory() as directory:
        print("\n".join(disk_kill.run(Path(directory), mode, KILLS, seed=1).lost))


if __name__ == "__main__":
    main()
