"""One port: its two queues, its backend, and who may send when.

Without Python while all goes well (``planes``); what follows is what Python does.

Guest to host, when the reader is slow: what a console says is kept as ``devices.backlog`` has it, and its chains come
back, because its driver spins until they do; on other ports, and where ``wait`` is asked for, it waits in the guest's
ring. While no host side is connected it is thrown away and counted. Host to guest: what the guest has no buffers for,
or has not opened the port for, waits on the host's side.
"""

import logging
from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.ioloop import Timer
from acrn_dm.base.records import define
from acrn_dm.devices.backlog import Backlog
from acrn_dm.devices.virtio_console.backend import PortBackend
from acrn_dm.devices.virtio_console.config import PortConfig
from acrn_dm.devices.virtio_console.planes import PortPlanes, can_serve
from acrn_dm.virtio.native._plane import Plane
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

CHUNK = 4096  # of host input at once
BATCH = 32  # chains per turn of the loop
IOV_MAX = 1024


@define(eq=False)
class Port:
    """The port, which lives as long as the device. A driver has it from ``start`` to ``reset``; ``stop`` and ``start``
    may come in between. Data moves on the loop's thread only.
    """

    index: int
    config: PortConfig
    backend: PortBackend
    again: Callable[[], None] = attrs.field(default=lambda: None, init=False, repr=False)  # pump in the next turn
    rx: Queue | None = attrs.field(default=None, init=False)  # to the guest
    tx: Queue | None = attrs.field(default=None, init=False)
    ready: bool = attrs.field(default=False, init=False)  # the driver said PORT_READY
    guest_open: bool = attrs.field(default=False, init=False)
    planes: PortPlanes | None = attrs.field(default=None, init=False, repr=False)  # what moves bytes without Python
    _discarded: int = attrs.field(default=0, init=False)  # bytes the guest sent to nobody
    backlog: Backlog = attrs.field(factory=Backlog, init=False)  # for a slow reader, of a console
    _keeps: bool = attrs.field(default=False, init=False)  # what a slow reader leaves, instead of waiting for it
    _dropped: int = attrs.field(default=0, init=False)  # bytes dropped since its reader had everything
    _timer: Timer | None = attrs.field(default=None, init=False, repr=False)  # ends the guest's waiting
    _pending: Chain | None = attrs.field(default=None, init=False)  # partly written
    _written: int = attrs.field(default=0, init=False)  # of the pending chain; after stop, of the next one
    _reading: bool = attrs.field(default=False, init=False)
    _starved: bool = attrs.field(default=False, init=False)  # the guest has no buffers
    _blocked: bool = attrs.field(default=False, init=False)

    def start(self, rx: Queue | None, tx: Queue | None, *, console: bool) -> None:
        """Take the driver's queues, for the first time or again. *console*: that is what the driver makes of it."""
        self.rx, self.tx = rx, tx
        if tx is not None:
            self.backlog.clock = tx.loop.clock
        self._keeps = console if self.config.slow is None else self.config.slow == "drop"

    @property
    def discarded(self) -> int:
        """How many bytes of the guest's went to nobody."""
        return self._discarded + (0 if self.planes is None else self.planes.discarded)

    def plane(self, queue: Queue) -> Plane | None:
        """What serves *queue*, one of the port's, without Python; None where ``pump`` has to."""
        if not can_serve(self.backend):
            return None
        if self.planes is None:
            self.planes = PortPlanes(self.backend)
            self.backend.on_drop = self._take
        return self.planes.make_rx(self.again) if queue is self.rx else self.planes.make_tx(self.again)

    def stop(self) -> None:
        """Let go of the queues. The chain that was half written comes again, and only the rest of it is written."""
        self._take()
        self._discarded, self.planes = self.discarded, None
        self.backend.on_drop = lambda: None
        self.rx = self.tx = self._pending = None
        self._reading = self._blocked = False
        self._stop_timer()

    def reset(self) -> None:
        """Forget the driver. The chain that was half written went to the host as far as it went."""
        if self.discarded:
            log.debug("port %d: %d bytes of the guest went to nobody so far", self.index, self.discarded)
        self.ready = self.guest_open = False
        self._written = 0

    def reader_left(self) -> None:
        """Nobody will ask for what is kept."""
        self._discarded += self.backlog.clear()
        self._dropped = 0

    def last_words(self) -> None:
        """The machine ends: the reader may still take what is kept, now or never. Not on the loop."""
        if self.backend.connected:
            self.backlog.write(self.backend.send)

    def pump(self) -> None:
        """Move what can be moved in both directions, up to a budget. Raises GuestError."""
        self._take()
        try:
            self._pump_tx()
            self._pump_rx()
            self._give()
        except GuestError:
            self.rx = self.tx = None  # the rings are not touched again until the driver resets
            self._reading = self._blocked = False
            raise
        finally:
            self.backend.want(read=self._reading, write=self._blocked)

    def _take(self) -> None:
        """Have the rings, if C has them."""
        if self.planes is not None:
            self._written = self.planes.take() or self._written

    def _give(self) -> None:
        """Let C have the rings again, if it has had them and nothing is left to do for Python."""
        if self.planes is None:
            return
        waits = self._blocked or self._pending is not None or self._written > 0
        if self.tx is not None and not self.tx.closed:
            self.planes.give_tx(idle=not waits, empty=self._pending is None)
        if self.rx is not None and self.guest_open and self.planes.give_rx(empty=self._starved):
            self._reading = False

    def _pump_tx(self) -> None:
        self._stop_timer()
        self._empty_backlog()
        self._blocked = len(self.backlog) > 0
        if self.tx is None or self.tx.closed:  # closed: broken by the driver, its chains are dead
            self._pending = None
            return
        for _ in range(BATCH):
            if self._pending is None:
                chains = self.tx.pop_batch(1)
                if not chains:
                    break
                self._pending = chains[0]
            if not self._write_pending(self._pending):
                self._blocked = True
                break
            self.tx.push(self._pending, 0)
            self._pending, self._written = None, 0
        else:
            self.tx.loop.call_soon(self.again)  # more may be there
        self.tx.flush()

    def _write_pending(self, chain: Chain) -> bool:
        """Write the rest of *chain* to the host; False when the host takes no more now."""
        while self._written < chain.readable_bytes:
            if not self.backend.connected:
                self._discarded += chain.readable_bytes - self._written
                return True
            taken = 0 if self.backlog else self.backend.send(chain.readable(self._written)[:IOV_MAX])
            self._written += taken
            self.backlog.took(taken)
            if not taken and self.backend.connected:
                return self._keep(chain)
        return True

    def _keep(self, chain: Chain) -> bool:
        """Keep the rest of *chain*; False while the guest has to wait with it."""
        if not self._keeps:
            return False
        rest = chain.readable_bytes - self._written
        if rest > self.backlog.room and (patience := self.backlog.patience()):
            assert self.tx is not None
            self._timer = self.tx.loop.call_later(patience, self.again)
            return False
        before, skipped = self._dropped, max(0, rest - self.backlog.limit)
        self._dropped += skipped
        for view in chain.readable(self._written + skipped):
            self._dropped += self.backlog.append(view)
        self._written = chain.readable_bytes
        self._blocked = True
        if self._dropped and not before:
            log.warning("%s: its reader is too slow: the oldest output is dropped", self.backend.label)
        return True

    def _empty_backlog(self) -> None:
        """Give the reader what it takes of what is kept."""
        if not self.backlog or not self.backend.connected:
            return
        self.backlog.write(self.backend.send)
        if not self.backlog and self._dropped:
            log.warning("%s: %d bytes were dropped for its slow reader", self.backend.label, self._dropped)
            self._dropped = 0

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pump_rx(self) -> None:
        self._reading = self._starved = False
        if self.rx is None or not self.guest_open:
            return
        for _ in range(BATCH):
            chains = self.rx.pop_batch(1)
            if not chains:
                self._starved = True
                break
            if chains[0].writable_bytes:
                data = self.backend.receive(min(CHUNK, chains[0].writable_bytes))
                if not data:
                    self.rx.unpop(chains)
                    self._reading = True
                    break
                chains[0].write(data)
            self.rx.push(chains[0])
        else:
            self._reading = True
        self.rx.flush()
