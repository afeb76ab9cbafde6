"""The planes of one port, and who has its rings: C as long as the host keeps up, Python when something needs thought.

Python takes the rings for each of its calls, and gives them back at the end of it unless it is still needed: for what
is kept for a slow reader, a chain that is half written, input that a peer has left, or while nobody may send.
"""

from collections.abc import Callable

import attrs

from acrn_dm.base.records import define
from acrn_dm.devices.virtio_console.backend import PortBackend
from acrn_dm.devices.virtio_console.native._port_plane import RxPlane, TxPlane

CALLS = {"send", "receive"}  # that planes make in C


def can_serve(backend: PortBackend) -> bool:
    """Whether planes know *backend*, by its class's own word ``moved_in_c``, which is not handed down: one that a test
    has put in its place, or watches, they would pass by.
    """
    own = "moved_in_c" in vars(type(backend))
    return own and backend.moved_in_c and not CALLS & vars(backend).keys()


@define(eq=False)
class PortPlanes:
    """Those of the port behind *backend*, under one driver. Used on the loop's thread, or with the loop held."""

    backend: PortBackend
    rx: RxPlane | None = attrs.field(default=None, init=False)
    tx: TxPlane | None = attrs.field(default=None, init=False)

    def make_rx(self, pump: Callable[[], object]) -> RxPlane:
        """A plane for the queue to the guest; *pump* is called when its ring is Python's."""
        self.rx = RxPlane(pump)
        self.backend.read_elsewhere = lambda: self.reading
        return self.rx

    def make_tx(self, pump: Callable[[], object]) -> TxPlane:
        """A plane for the queue from the guest."""
        self.tx = TxPlane(pump)
        return self.tx

    @property
    def reading(self) -> bool:
        """Whether C waits for input."""
        return self.rx is not None and self.rx.waiting

    @property
    def discarded(self) -> int:
        """Bytes that C has thrown away: nobody was there."""
        return 0 if self.tx is None else self.tx.discarded

    def take(self) -> int:
        """Let Python have both rings. Returns how many bytes of the guest's next chain have gone. Idempotent."""
        if self.rx is not None:
            self.rx.take()
        return 0 if self.tx is None else self.tx.take()

    def give_tx(self, *, idle: bool, empty: bool) -> None:
        """Let C send, if Python has nothing to send any more (*idle*), else tell Python of chains if the ring is
        *empty*.
        """
        if self.tx is None or not self.tx.live:
            return
        if idle:
            self.tx.go(self.backend.write_fd if self.backend.connected else -1)
        elif empty:
            self.tx.arm()

    def give_rx(self, *, empty: bool) -> bool:
        """Let C receive, if all input comes from a descriptor that can be waited for; else as ``give_tx``. Returns
        whether C does.
        """
        if self.rx is None or not self.rx.live:
            return False
        if self.backend.connected and self.backend.read_fd >= 0 and self.backend.plain_input:
            try:
                self.rx.go(self.backend.read_fd)
            except PermissionError:
                pass  # a regular file; Python says that it is not read
            else:
                return True
        if empty:
            self.rx.arm()
        return False
