"""One port: its two queues, its backend, and who may send when.

Guest to host: what the host does not take waits in the guest's ring; while no host side is connected it is thrown away
and counted. Host to guest: what the guest has no buffers for, or has not opened the port for, waits on the host's side.
"""

from collections.abc import Callable

import attrs

from acrn_dm._fastring import Chain
from acrn_dm.devices.virtio_console.backend import PortBackend
from acrn_dm.devices.virtio_console.config import PortConfig
from acrn_dm.errors import GuestError
from acrn_dm.virtio.queue import Queue

CHUNK = 4096  # of host input at once
BATCH = 32  # chains per turn of the loop
IOV_MAX = 1024


@attrs.define(eq=False)
class Port:
    """Lives as long as the device. A driver has it from ``start`` to ``reset``; ``stop`` and ``start`` may come in
    between. Data moves on the loop's thread only.
    """

    index: int
    config: PortConfig
    backend: PortBackend
    again: Callable[[], None] = attrs.field(default=lambda: None, init=False, repr=False)  # pump in the next turn
    rx: Queue | None = attrs.field(default=None, init=False)  # to the guest
    tx: Queue | None = attrs.field(default=None, init=False)
    ready: bool = attrs.field(default=False, init=False)  # the driver said PORT_READY
    guest_open: bool = attrs.field(default=False, init=False)
    discarded: int = attrs.field(default=0, init=False)  # bytes the guest sent to nobody
    _pending: Chain | None = attrs.field(default=None, init=False)  # partly written
    _written: int = attrs.field(default=0, init=False)  # of the pending chain; after stop, of the next one
    _reading: bool = attrs.field(default=False, init=False)
    _blocked: bool = attrs.field(default=False, init=False)

    def start(self, rx: Queue | None, tx: Queue | None) -> None:
        """Take the driver's queues, for the first time or again."""
        self.rx, self.tx = rx, tx

    def stop(self) -> None:
        """Let go of the queues. The chain that was half written comes again, and only the rest of it is written."""
        self.rx = self.tx = self._pending = None
        self._reading = self._blocked = False

    def reset(self) -> None:
        """Forget the driver. The chain that was half written went to the host as far as it went."""
        self.ready = self.guest_open = False
        self._written = 0

    def pump(self) -> None:
        """Move what can be moved in both directions, up to a budget. Raises GuestError."""
        try:
            self._pump_tx()
            self._pump_rx()
        except GuestError:
            self.rx = self.tx = None  # the rings are not touched again until the driver resets
            self._reading = self._blocked = False
            raise
        finally:
            self.backend.want(read=self._reading, write=self._blocked)

    def _pump_tx(self) -> None:
        self._blocked = False
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
                self.discarded += chain.readable_bytes - self._written
                return True
            taken = self.backend.send(chain.readable(self._written)[:IOV_MAX])
            self._written += taken
            if not taken and self.backend.connected:
                return False
        return True

    def _pump_rx(self) -> None:
        self._reading = False
        if self.rx is None or not self.guest_open:
            return
        for _ in range(BATCH):
            chains = self.rx.pop_batch(1)
            if not chains:
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
