"""virtio-net (virtio 5.1): joins receive queue, transmit queue and tap. No control queue, so no filters."""

import logging
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from acrn_dm.devices.loopwork import FdWatch, guarded
from acrn_dm.devices.virtio_net import backend
from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.receive import Receiver
from acrn_dm.devices.virtio_net.request import (
    GUEST_CSUM,
    GUEST_ECN,
    GUEST_TSO4,
    GUEST_TSO6,
    MAC,
    MRG_RXBUF,
    OFFLOADS,
    STATUS,
    header_bytes,
)
from acrn_dm.devices.virtio_net.transmit import Transmitter
from acrn_dm.errors import GuestError
from acrn_dm.ioloop import READ, WRITE
from acrn_dm.resources import Resources
from acrn_dm.types import DeviceContext
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue

log = logging.getLogger(__name__)

RX, TX = 0, 1
QUEUE_SIZE = 1024
LINK_UP = 1
CONFIG = struct.Struct("<6sH")  # mac, status: 5.1.4; what follows belongs to features that are not offered
TAP_OFFLOADS = {
    GUEST_CSUM: backend.TUN_F_CSUM,
    GUEST_TSO4: backend.TUN_F_TSO4,
    GUEST_TSO6: backend.TUN_F_TSO6,
    GUEST_ECN: backend.TUN_F_TSO_ECN,
}


class NetDevice(VirtioDevice):
    """A network card on a tap. Both queues share one I/O loop, because they share the tap's descriptor."""

    device_id = 1
    pci_class = 0x020000
    transitional = True

    def __init__(
        self, config: NetConfig, context: DeviceContext, open_backend: Callable[[str], PacketFile] = backend.open_tap
    ) -> None:
        super().__init__(context)
        self.config = config
        self.tap: PacketFile | None = None
        self.rx: Receiver | None = None
        self.tx: Transmitter | None = None
        self._open = open_backend
        self._mac = config.address(context.bdf)
        self._link = 0
        self._watch: FdWatch | None = None

    @property
    def features(self) -> int:
        """Offloads where the backend has packet headers, which a tap always has."""
        offloads = OFFLOADS if self.tap is None or self.tap.vnet_header else 0
        return MAC | STATUS | MRG_RXBUF | offloads

    @property
    def queue_sizes(self) -> Sequence[int]:
        """One receive and one transmit queue."""
        return (QUEUE_SIZE, QUEUE_SIZE)

    @property
    def config_size(self) -> int:
        """mac and status."""
        return CONFIG.size

    @property
    def backend_name(self) -> str:
        """The kernel's vhost or another process, if asked for."""
        if self.config.vhost_user is not None:
            return "vhost-user"
        return "vbs-u" if self.config.vhost == "off" else "vhost"

    @property
    def backend_optional(self) -> bool:
        """``vhost=auto``."""
        return self.config.vhost == "auto"

    @property
    def backend_path(self) -> Path | None:
        """The other process's socket."""
        return self.config.vhost_user

    @property
    def backend_text(self) -> str:
        """The interface, or the socket."""
        if self.config.vhost_user is not None:
            return f"vhost-user {self.config.vhost_user}"
        return f"tap {self.config.tap}" + {"on": " (vhost)", "auto": " (vhost, if usable)"}.get(self.config.vhost, "")

    def check(self) -> list[str]:
        """Whether the interface is there."""
        why = None if self.config.tap is None else backend.problem(self.config.tap)
        return [] if why is None else [f"{self.name}: {why}"]

    def realize(self, resources: Resources) -> None:
        """Open the tap. Raises ConfigError or HostError; unlike the original, there is no device without a tap."""
        if self.config.tap is not None:
            self.tap = self._open(self.config.tap)
        self._link = LINK_UP

    def read_config(self, offset: int, size: int) -> bytes:
        """5.1.4."""
        return CONFIG.pack(self._mac, self._link)[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """Legacy drivers may write the address (5.1.4.1): it is stored until the reset and means nothing to us."""
        mac = bytearray(self._mac)
        room = max(0, len(mac) - offset)
        mac[offset : offset + len(data[:room])] = data[:room]
        self._mac = bytes(mac)

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        """Tell the tap what was negotiated and begin to read. Raises HostError."""
        if self.tap is None:
            return
        offloads = sum(bit for feature, bit in TAP_OFFLOADS.items() if features & feature)
        if self._link:
            self.tap.configure(header_bytes=header_bytes(features), offloads=offloads)
        for queue in queues:
            if queue.index == RX:
                self.rx = Receiver(queue, self.tap, features)
            else:
                self.tx = Transmitter(queue, self.tap, features)
        if queues:
            # The first look at the rings is what watches the tap.
            self._watch = FdWatch(queues[0].loop, self.tap.fd, guarded(self, self._tap_ready))

    def handle_queue(self, queue: Queue) -> None:
        """Buffers for frames that may wait, or frames to send."""
        try:
            if not self._link:
                self._discard()
            elif queue.index == RX and self.rx is not None:
                self.rx.pump()
            elif self.tx is not None and not self.tx.blocked:
                self.tx.pump()
        except OSError as e:
            self._tap_gone(e)
        self._follow()

    def stop(self) -> None:
        """Let go of the queues; frames that wait in the tap are the next driver's."""
        if self._watch is not None:
            self._watch.close()
        self._watch = self.rx = self.tx = None
        self._mac = self.config.address(self.context.bdf)

    def close(self) -> None:
        """Close the tap."""
        self.stop()
        tap, self.tap = self.tap, None
        if tap is not None:
            tap.close()

    def _tap_ready(self) -> None:
        """Frames arrived, or there is room again."""
        try:
            if self.tx is not None and self.tx.blocked:
                self.tx.pump()
            if self.rx is not None:
                self.rx.pump()
        except OSError as e:
            self._tap_gone(e)
        except GuestError:
            self.rx = self.tx = None  # the rings are not touched again, nor is the tap, until the driver resets
            raise
        finally:
            self._follow()

    def _follow(self) -> None:
        """Watch the tap for what the queues wait for."""
        if self._watch is not None:
            events = READ if self._link and self.rx is not None and self.rx.reads else 0
            events |= WRITE if self._link and self.tx is not None and self.tx.blocked else 0
            self._watch.want(events)

    def _tap_gone(self, error: OSError) -> None:
        log.error("%s: tap %s: %s; the link is down", self.name, self.config.tap, error)
        self._link = 0
        self.config_changed()
        self._discard()

    def _discard(self) -> None:
        if self.tx is not None:
            self.tx.discard()
