"""The rings of one vhost-user client: when the device serves them, and what is known of the driver behind them.

Rings run when all that were started are enabled too, and, where the driver's status is told, after DRIVER_OK; so a
client that sets its rings up one after another does not make the device start as often. Stopping any of them stops
the device, until a request that starts something comes. A card's rings run as soon as they are enabled: its driver
uses as many pairs as it likes. Memory changes stop it in between.

A client stops rings for its driver's reset and for a pause, after which the driver goes on and does not repeat what it
has told the device. RESET_DEVICE says that it is a reset. SET_STATUS does not, for QEMU sends 0 each time it stops, and
many clients send neither: then a ring that starts elsewhere than where it stopped is another driver's.
"""

from collections.abc import Callable

from acrn_dm.backends.wire.message import LOG_ALL, PROTOCOL_FEATURES, PeerError, ProtocolFeature
from acrn_dm.export.vhost_user.client_memory import ClientMemory
from acrn_dm.export.vhost_user.device import ExportedDevice
from acrn_dm.export.vhost_user.dirty import WriteLog
from acrn_dm.export.vhost_user.inflight import InflightRegion
from acrn_dm.export.vhost_user.vring import Vring
from acrn_dm.ring.factory import log_writes
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Ring
from acrn_dm.virtio.defs import Status
from acrn_dm.virtio.optional import QueueSwitch


class Rings:
    """All rings, and what the client said that counts for each of them: *features*, *protocol* and *status*."""

    def __init__(self, exported: ExportedDevice) -> None:
        self.memory = ClientMemory(dumped=exported.dumps_memory)
        self.inflight = InflightRegion(self.memory.shortened)
        self.log = WriteLog(self.memory.shortened)
        self.features = 0
        self.protocol = ProtocolFeature(0)
        self.status = 0
        self._exported = exported
        self._vrings = [Vring(i, size) for i, size in enumerate(exported.device.queue_sizes)]
        self._running = False
        self._served: list[Vring] = []
        self._in_parts = isinstance(exported.device, QueueSwitch)

    def __len__(self) -> int:
        return len(self._vrings)

    def ring(self, index: int) -> Vring:
        """The ring of that number. Raises PeerError where there is none."""
        if index >= len(self._vrings):
            raise PeerError(f"ring {index} of {len(self._vrings)}")
        return self._vrings[index]

    def stopped(self, index: int) -> Vring:
        """The ring of that number, to be changed. Raises PeerError where there is none."""
        vring = self.ring(index)
        self.stop()
        return vring

    def place(self, index: int, position: RingPosition) -> None:
        """Ring *index* is to go on at *position*."""
        vring = self.stopped(index)
        if vring.stopped_at not in (None, position):
            self.forget_driver()
        vring.position = position

    def with_device_stopped(self, change: Callable[[], None]) -> None:
        """Do *change* while nobody uses memory."""
        running = self._running
        self.stop()
        change()
        if running:
            self.start_if_ready()

    def start_if_ready(self) -> None:
        """See the module. Raises what ``ExportedDevice.start`` does; then nothing runs."""
        served = self._to_serve()
        if not served or self._awaits_driver or (self._running and served == self._served):
            return
        self.stop()
        features = self.features & ~(PROTOCOL_FEATURES | LOG_ALL)
        self._log_bits()  # what can't be is refused before anything is open
        self._exported.start(features, served, self.memory, self.inflight, self._log_writes)
        self._running, self._served = True, served
        for vring in served:
            vring.serves()

    def update_log(self) -> None:
        """Log what rings write as the client wants it now; those that run go on. Raises PeerError for a log that is too
        short.
        """
        self._exported.each_ring(self._log_writes)
        self.log.forget_old()

    def stop(self) -> None:
        """The device serves no ring; each is where it was. Idempotent."""
        if self._running:
            self._running = False
            for index, position in self._exported.stop().items():
                self._vrings[index].position = self._vrings[index].stopped_at = position
            self.log.forget_old()

    def forget_driver(self) -> None:
        """Only while stopped. The other rings' positions are the former driver's, too: they say nothing of the next."""
        self._exported.reset()
        for vring in self._vrings:
            vring.stopped_at = None

    def reset(self) -> None:
        """The driver is gone, and every ring is as it was before the client spoke of it. Raises what the device's stop
        does, when that is so.
        """
        try:
            self.stop()
        finally:
            self.forget_driver()
            self.inflight.clear()
            self.log.clear()
            self.status = 0
            for vring in self._vrings:
                vring.reset()

    def broken(self) -> None:
        """The device can't go on with this driver, which is to reset it."""
        self.status |= Status.NEEDS_RESET
        for vring in self._vrings:
            vring.error()

    def enable(self, index: int, on: bool) -> None:
        """SET_VRING_ENABLE. Raises PeerError where there is no such ring, and what ``start_if_ready`` does."""
        vring = self.ring(index)
        if vring.enabled == on:
            return
        vring.enabled = on
        if not on:
            self.stop()
        if on or self._in_parts:
            self.start_if_ready()

    def _log_bits(self) -> memoryview | None:
        return self.log.bits(self.memory.end) if self.features & LOG_ALL else None

    def _log_writes(self, index: int, ring: Ring) -> None:
        vring = self._vrings[index]
        bits = self._log_bits()
        used = -1 if vring.log is None else vring.log
        log_writes(ring, bits, used=used, desc=self.memory.guest_address(vring.desc or 0))

    def _to_serve(self) -> list[Vring]:
        """Those that are started, once all are enabled; where the driver chooses how many queues it uses (pairs of a
        card), those that are enabled.
        """
        started = [vring for vring in self._vrings if vring.started]
        enabled = [vring for vring in started if self._enabled(vring)]
        return enabled if self._in_parts or len(enabled) == len(started) else []

    @property
    def _awaits_driver(self) -> bool:
        """Whether the client tells its driver's status, which is not DRIVER_OK yet.

        QEMU 7.2 says FEATURES_OK when it sets the features, which is no driver's without DRIVER, and goes on to
        DRIVER_OK with some of its devices only. With its entropy device the rings are all that tells.
        """
        told = self.protocol & ProtocolFeature.STATUS and (not self.status or self.status & Status.DRIVER)
        return bool(told) and not self.status & Status.DRIVER_OK

    def _enabled(self, vring: Vring) -> bool:
        return vring.enabled or not self.features & PROTOCOL_FEATURES
