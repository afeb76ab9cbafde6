"""The image that a block driver is: its calls, each under a guard, and what the disk promises above it.

A request is a generator of the driver's futures that are not done yet, so that no thread waits for them: between two of
them the request waits in its pool. Who may wait (a legacy driver's requests, the last flush) uses ``finish``.
"""

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.records import define
from acrn_dm.contract.drivers.block import BlockDriver, Later
from acrn_dm.contract.plugins.guard import told
from acrn_dm.devices.virtio_blk.drivers.faults import Blame
from acrn_dm.devices.virtio_blk.engine.pieces import Views, after, first_piece, require_wanted, total
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.trust import Trust
from acrn_dm.devices.virtio_blk.job import Steps
from acrn_dm.devices.virtio_blk.native.engines._engine import BlkEngine
from acrn_dm.devices.virtio_blk.request import Op, Request

log = logging.getLogger(__name__)

LOOK_S = 0.1  # how often a thread that waits for a future looks whether it is still wanted


@contextmanager
def lent(views: Views) -> Iterator[list[memoryview]]:
    """*views* for somebody who may keep them, which is of no use after the block."""
    own = [memoryview(view) for view in views]
    try:
        yield own
    finally:
        for view in own:
            with suppress(BufferError):  # it has made views of it, and keeps those
                view.release()


class DriverTrust(Trust):
    """The standing of what has no file: nobody can cut it."""

    def whole(self) -> bool:
        """It is."""
        return True


@define(eq=False)
class DriverImage(Image):
    """The image of *driver*; its file descriptor is none. *blame* tells of its faults."""

    driver: BlockDriver = attrs.field(kw_only=True)
    blame: Blame = attrs.field(kw_only=True)
    _turn: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def _new_trust(self) -> Trust:
        return DriverTrust(self.fd, self.size)

    def steps(self, request: Request, views: Views, *, durable: bool) -> Steps:
        """Do *request*; yields each future of the driver's that has to be waited for. Raises OSError."""
        if request.op is Op.READ:
            yield from self._read_steps(views, request.extents[0].offset)
        elif request.op is Op.WRITE:
            yield from self._write_steps(views, request.extents[0].offset, durable)
        elif request.op is Op.FLUSH:
            yield from self._flush_steps()
        elif request.op is Op.DISCARD:
            for extent in request.extents:
                yield from self._discard_steps(extent.offset, extent.length)
        elif request.op is Op.WRITE_ZEROES:
            for extent in request.extents:
                yield from self._zero_steps(extent.offset, extent.length, extent.unmap, durable)

    def read(self, views: Views, offset: int) -> None:
        """See Image."""
        finish(self._read_steps(views, offset))

    def write(self, views: Views, offset: int, *, durable: bool) -> None:
        """See Image."""
        finish(self._write_steps(views, offset, durable))

    def read_cached(self, views: Views, offset: int) -> bool:
        """Nobody knows whether a driver would wait."""
        return False

    def flush(self) -> None:
        """See Image."""
        finish(self._flush_steps())

    def discard(self, offset: int, length: int) -> None:
        """See Image."""
        finish(self._discard_steps(offset, length))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        """See Image."""
        finish(self._zero_steps(offset, length, unmap, durable))

    @property
    def has_engines(self) -> bool:
        """Whether its driver has engines that serve queues without Python."""
        return type(self.driver).engine is not BlockDriver.engine

    def engine(self, depth: int) -> BlkEngine:
        """One for a queue with *depth* requests in flight. Raises OSError, and HostError for a fault of the driver."""
        try:
            made = self.driver.engine(depth)
        except OSError:
            raise
        except (Exception, SystemExit) as e:
            raise HostError(f"{self.blame.who}: engine: {told(e)}") from e
        if not isinstance(made, BlkEngine):
            raise HostError(f"{self.blame.who}: engine made {type(made).__name__}, which is no BlkEngine")
        return made

    def close(self) -> None:
        """Close the driver. What it raises is said, and stops nobody."""
        try:
            self.driver.close()
        except (Exception, SystemExit) as e:
            log.error("%s: closing: %s", self.blame.who, told(e))

    def _read_steps(self, views: Views, offset: int) -> Steps:
        while views:
            piece = first_piece(views)
            with lent(piece) as buffers:
                yield from self._call(lambda b=buffers, at=offset: self.driver.read(at, b))  # type: ignore[misc]
            views, offset = after(views, total(piece)), offset + total(piece)

    def _write_steps(self, views: Views, offset: int, durable: bool) -> Steps:
        if durable:
            self.trust.require_kept()
        views = [view.toreadonly() for view in views]
        with self.trust.volatile_change():
            while views:
                piece = first_piece(views)
                with lent(piece) as buffers:
                    yield from self._call(lambda b=buffers, at=offset: self.driver.write(at, b))  # type: ignore[misc]
                views, offset = after(views, total(piece)), offset + total(piece)
        if durable:
            yield from self._flush_steps()

    def _discard_steps(self, offset: int, length: int) -> Steps:
        if length:
            yield from self._change(lambda: self.driver.discard(offset, length))

    def _zero_steps(self, offset: int, length: int, unmap: bool, durable: bool) -> Steps:
        if length:
            yield from self._change(lambda: self.driver.write_zeroes(offset, length, unmap))
        if durable:
            yield from self._flush_steps()

    def _change(self, call: Callable[[], Later]) -> Steps:
        with self.trust.volatile_change():
            yield from self._call(call)

    def _flush_steps(self) -> Steps:
        """The standing is only looked at and written here: who waited for another's flush would keep a thread from the
        requests that the other one needs to end.
        """
        self.trust.require_kept()
        standing = self.trust.standing
        before = standing.begin_sync()
        standing.end_sync(0, 0)
        err = errno.ECANCELED
        try:
            yield from self._call(self.driver.flush)
            err = 0
        except OSError as e:
            err = e.errno or errno.EIO
            raise
        finally:
            standing.begin_sync()
            standing.end_sync(before if err == 0 else 0, err)

    def _call(self, call: Callable[[], Later]) -> Steps:
        """One call of the driver, and what becomes of it. Raises OSError."""
        require_wanted()
        later = self._begun(call)
        if later is None:
            return
        if not later.done():
            yield later
        self._ended(later)

    def _begun(self, call: Callable[[], Later]) -> "Future[None] | None":
        try:
            if self.driver.parallel:
                later = call()
            else:
                with self._turn:
                    later = call()
        except OSError:
            raise
        except BaseException as e:  # on threads of ours: whatever it is, it is the driver's
            raise self.blame.error(e) from e
        if later is not None and not isinstance(later, Future):
            raise self.blame.error(f"returned {type(later).__name__}, not None or a Future")
        return later

    def _ended(self, later: "Future[None]") -> None:
        try:
            later.result(0)
        except CancelledError:
            raise OSError(errno.ECANCELED, "the driver has reset the device") from None
        except OSError:
            raise
        except BaseException as e:
            raise self.blame.error(e) from e


def finish(steps: Steps) -> None:
    """Do *steps* to their end on this thread. Raises OSError."""
    for later in steps:
        while not wait([later], timeout=LOOK_S).done:
            try:
                require_wanted()
            except OSError:
                later.cancel()
