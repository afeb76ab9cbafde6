"""Block drivers: what executes a disk's requests. Policies (cache mode, errors, resets, pauses) are the disk's.

A driver knows neither descriptors nor guests. It gets byte offsets, and stretches of guest memory to fill or to store.
"""

import errno
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeAlias

from acrn_dm.base.files.claims import Claim

Buffers: TypeAlias = Sequence[memoryview]
Later: TypeAlias = Future[None] | None

ZEROES = memoryview(bytes(1 << 20))


class BlockDriver:
    """A medium of *size* bytes: override ``read`` and ``write`` at least, and set ``size`` before ``open`` returns.

    **When it is done.** A call that returns None has done its work. One that returns a ``concurrent.futures.Future``
    has begun it: ``set_result(None)`` ends it, from any thread, and ``set_exception(OSError(...))`` fails it. Futures
    end in any order. A reset cancels those that do not run: whoever touches buffers later calls
    ``set_running_or_notify_cancel()`` first, as executors do, and lets go where that says no; then it is waited for.

    **Threads.** Calls come from threads of the disk and may block. One comes at a time, unless ``parallel`` is true;
    futures never hold up other calls.

    **Buffers.** Guest memory, no more than 4 MiB and 1024 stretches a call; whole blocks in sum, though a stretch need
    not be one. The guest may change a byte at any moment: read each once. They are valid until the call is done.

    **Errors.** OSError is an answer: the guest gets IOERR (``EOPNOTSUPP``: UNSUPP), or stands still, as ``rerror`` and
    ``werror`` of the disk say. Whatever else is raised or returned is a fault of the driver: one line in the log, and
    IOERR. A flush that has failed stays failed until the disk is opened anew.
    """

    size: int = 0  # bytes, a multiple of ``logical``; does not change while it is open
    logical: int = 512  # bytes of a block, a power of two: what the guest is told, unless ``sectorsize`` says otherwise
    physical: int = 4096  # bytes that are best written at once
    parallel: bool = False  # several calls may run at once

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        return []

    def claims(self) -> Sequence[Claim]:
        """What it will use of the host that only one can have. Asked before anything is open."""
        return ()

    def open(self) -> None:
        """Open what is needed. Raises ConfigError, HostError or OSError."""

    def read(self, offset: int, buffers: Buffers) -> Later:
        """Fill all of *buffers* with what is at byte *offset*."""
        raise NotImplementedError

    def write(self, offset: int, buffers: Buffers) -> Later:
        """Store all of *buffers* at byte *offset*. Until a ``flush`` it may be lost with the power."""
        raise NotImplementedError

    def flush(self) -> Later:
        """Make all writes that are done last. Nothing to do where nothing outlasts the process."""

    def discard(self, offset: int, length: int) -> Later:
        """Forget a range, which reads as anything from then on. EOPNOTSUPP where that can't be done."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def write_zeroes(self, offset: int, length: int, unmap: bool) -> Later:
        """Let a range read as zeroes; *unmap* allows to give its room back. By default zeroes are written, piece by
        piece, each by a ``write`` that is done when it returns.
        """
        for at in range(0, length, len(ZEROES)):
            later = self.write(offset + at, [ZEROES[: length - at]])
            if later is not None:
                later.result()
        return None

    def engine(self, depth: int) -> object | None:
        """What serves one queue with *depth* requests in flight without Python: a new
        ``acrn_dm.devices.virtio_blk.native.engines._engine.BlkEngine``. By default there is none; who overrides this
        always has one. The methods above get what engines are not asked for: ranges, and whatever a legacy driver
        wants. Raises OSError.
        """
        return None

    def control(self, text: str) -> None:
        """Do what somebody says while the machine runs: the command monitor's ``driver``. Any thread. Raises ValueError
        for what it does not understand.
        """
        raise ValueError("this driver takes no commands")

    def close(self) -> None:
        """Give back what ``open`` took, also when that has failed half-way. Nothing is in flight, and nothing comes any
        more. Idempotent.
        """


class BlockFilter(BlockDriver):
    """A driver before another one, *over*: passes everything on. Override what is to be different."""

    parallel = True

    def __init__(self, over: BlockDriver) -> None:
        self.over = over

    def check(self) -> list[str]:
        """As the one below."""
        return self.over.check()

    def claims(self) -> Sequence[Claim]:
        """As the one below."""
        return self.over.claims()

    def open(self) -> None:
        """Open the one below, and be as large."""
        self.over.open()
        self.size, self.logical, self.physical = self.over.size, self.over.logical, self.over.physical
        self.parallel = self.over.parallel

    def read(self, offset: int, buffers: Buffers) -> Later:
        """As the one below."""
        return self.over.read(offset, buffers)

    def write(self, offset: int, buffers: Buffers) -> Later:
        """As the one below."""
        return self.over.write(offset, buffers)

    def flush(self) -> Later:
        """As the one below."""
        return self.over.flush()

    def discard(self, offset: int, length: int) -> Later:
        """As the one below."""
        return self.over.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, unmap: bool) -> Later:
        """As the one below."""
        return self.over.write_zeroes(offset, length, unmap)

    def control(self, text: str) -> None:
        """As the one below."""
        self.over.control(text)

    def close(self) -> None:
        """Close the one below."""
        self.over.close()
