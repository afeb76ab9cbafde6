"""The bounce buffer of legacy drivers: requests touch guest memory only while they are wanted.

A legacy driver frees its memory right after it has written the reset, whether or not the host has come back from what
is in flight. So its data passes through a buffer of ours: what comes too late from the medium goes nowhere, what goes
to the medium late is what the driver gave. It costs a copy; modern drivers wait for the status to read 0 instead.
"""

import errno
import functools
from collections.abc import Callable

from acrn_dm.base.records import frozen
from acrn_dm.devices.virtio_blk.engine.pieces import Views, after, before, gather, scatter, total
from acrn_dm.devices.virtio_blk.image.backend import Image

BUFFER_BYTES = 1 << 20

Wanted = Callable[[Callable[[], None]], bool]  # does something unless nobody wants it any more; says whether


@frozen(eq=False)
class BounceBuffer:
    """The transfers of *image* through such a buffer. All raise OSError."""

    image: Image
    still_wanted: Wanted

    def read(self, views: Views, offset: int) -> None:
        """Fill *views*."""
        buffer = memoryview(bytearray(min(total(views), BUFFER_BYTES)))
        while views:
            piece = before(views, BUFFER_BYTES)
            part = buffer[: total(piece)]
            self.image.read([part], offset)
            self._touch(functools.partial(scatter, part, piece))
            views, offset = after(views, len(part)), offset + len(part)

    def write(self, views: Views, offset: int, *, durable: bool) -> None:
        """Write *views*."""
        buffer = memoryview(bytearray(min(total(views), BUFFER_BYTES)))
        while views:
            piece = before(views, BUFFER_BYTES)
            part = buffer[: total(piece)]
            self._touch(functools.partial(gather, piece, part))
            self.image.write([part], offset, durable=durable)
            views, offset = after(views, len(part)), offset + len(part)

    def flush(self) -> None:
        """Has no data."""
        self.image.flush()

    def discard(self, offset: int, length: int) -> None:
        """Has no data."""
        self.image.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        """Has no data."""
        self.image.write_zeroes(offset, length, unmap=unmap, durable=durable)

    def secure_erase(self, offset: int, length: int) -> None:
        """Has no data."""
        self.image.secure_erase(offset, length)

    def read_lifetime(self, views: Views) -> None:
        """Needs no waiting."""
        self._touch(functools.partial(self.image.read_lifetime, views))

    def _touch(self, action: Callable[[], None]) -> None:
        if not self.still_wanted(action):
            raise OSError(errno.ECANCELED, "the driver has reset the device")
