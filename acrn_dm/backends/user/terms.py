"""Terms on which a device's data plane is in another process: whose feature bits are whose, whose the configuration
space is, and what the end of a back-end costs.

Three kinds of feature bits: those that concern data or rings need both the device (or the ring code of the driver's
side) and the back-end; those that are answered in this process (``here``) need only the device, and the back-end never
hears of them; and of devices that this process does not implement at all when they are elsewhere (a disk without an
image), the back-end's word is enough (``theirs``).

VIRTIO_NET_F_MQ is of the first kind although the control queue is served here: back-ends take it for the announcement
of more than one queue pair (DPDK forgets the rings of the others without it).
"""

import enum
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import attrs

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire.message import ProtocolFeature
from acrn_dm.base.records import frozen
from acrn_dm.virtio import defs, features
from acrn_dm.virtio.device import VirtioDevice

NET_MAC, NET_STATUS, NET_CTRL_VQ, NET_CTRL_RX, NET_CTRL_VLAN = 1 << 5, 1 << 16, 1 << 17, 1 << 18, 1 << 19
NET_CTRL_RX_EXTRA, NET_ANNOUNCE, NET_MQ, NET_CTRL_MAC = 1 << 20, 1 << 21, 1 << 22, 1 << 23
NET_MTU, NET_SPEED_DUPLEX = 1 << 3, 1 << 63
NET_ANSWERED_HERE = (
    NET_MAC
    | NET_STATUS
    | NET_CTRL_VQ
    | NET_CTRL_RX
    | NET_CTRL_VLAN
    | NET_CTRL_RX_EXTRA
    | NET_ANNOUNCE
    | NET_CTRL_MAC
    | NET_MTU
    | NET_SPEED_DUPLEX
)
# 5.2.3: everything up to WRITE_ZEROES but BARRIER and SCSI; later fields are past the end of our configuration space.
BLK_MQ, BLK_CONFIG_WCE = 1 << 12, 1 << 11
BLK_BITS = 0x7FFF & ~(1 << 0 | 1 << 3 | 1 << 7 | 1 << 8)
BLK_QUEUES_OFFSET, BLK_WRITEBACK_OFFSET = 34, 32  # num_queues (le16) and writeback (u8), 5.2.4
CONSOLE_MULTIPORT, CONSOLE_EMERG_WRITE = 1 << 1, 1 << 2
CONSOLE_PORTS_OFFSET, CONSOLE_EMERG_OFFSET = 4, 8  # max_nr_ports (le16) and emerg_wr, 5.3.4

FOREIGN_BITS = (1 << 24) - 1 | (1 << 64) - (1 << 50)  # 2.2: of the device type, as far as GET_FEATURES can tell them

COMMON_PROTOCOL = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.STATUS
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
)


@frozen(kw_only=True)
class WritableField:
    """A field of the configuration that drivers write. *kept*: a new back-end is told again what was written last."""

    offset: int
    size: int
    feature: int = attrs.field(repr=hex)
    kept: bool

    def cut(self, offset: int, data: bytes) -> bytes:
        """The part of *data*, written at *offset*, that belongs to the field; nothing unless its first byte does."""
        skip = self.offset - offset
        return data[skip : skip + self.size] if skip >= 0 else b""


class AfterLoss(enum.Enum):
    """The way on when a back-end has ended that used the rings, and another one comes."""

    GO_ON = "go on"  # from the used index: chains return in order, or may be done twice
    KEEP = "keep"  # all that is in flight is done again: by the back-end's notes (INFLIGHT_SHMFD), else as we know
    # By the back-end's notes alone; without them the driver is asked for a reset. Requests of a kind that is not known
    # may not be repeated, and what the process knew of its driver (a mounted file system, open files) went with it.
    RESET = "reset"


@frozen(kw_only=True)
class Terms:
    """The terms of one device. *here* and *theirs* are feature bits, see the module; what is offered at the registers
    (``OFFERED_BY_PCI``) is always *here*.
    """

    device_id: int  # whose names and dependencies the bits of the device type have
    here: int = attrs.field(default=0, repr=hex)
    theirs: int = attrs.field(default=0, repr=hex)
    remote_config: bool = True  # the back-end owns the configuration space
    writable: WritableField | None = None
    after_loss: AfterLoss = AfterLoss.GO_ON
    # Packed rings are gone on with after the end of a back-end, by its notes or a relay.
    keeps_packed: bool = True
    chosen_queues: bool = False  # their number is an option's; others have as many as their kind needs

    @property
    def tracked(self) -> bool:
        """Whether the rings alone do not tell how to go on after the end of a back-end."""
        return self.after_loss is not AfterLoss.GO_ON

    @property
    def protocol(self) -> ProtocolFeature:
        """Protocol features this device has a use for."""
        wanted = COMMON_PROTOCOL
        if self.remote_config:
            wanted |= ProtocolFeature.CONFIG | ProtocolFeature.BACKEND_REQ
        return wanted | ProtocolFeature.INFLIGHT_SHMFD if self.tracked else wanted

    def offer(self, wanted: int, peer: int, queues: int) -> int:
        """Features to offer where the device and the ring have *wanted*, the back-end *peer*, with *queues* queues."""
        peer &= ~wire.PROTOCOL_FEATURES
        return features.prune(self.device_id, wanted & (peer | self._here) | peer & self.theirs)

    def lacking(self, peer: int) -> list[str]:
        """The names of features that a device of its kind can't be without and the back-end *peer* has not got."""
        return features.names(self.device_id, features.MANDATORY.get(self.device_id, 0) & ~peer)

    def told(self, negotiated: int) -> int:
        """Those of the *negotiated* features that are the back-end's business."""
        return negotiated & ~self._here

    def needed_of_peer(self, negotiated: int) -> int:
        """Those of the *negotiated* features that the back-end has to know."""
        return self.told(negotiated) & ~features.ANY_LAYOUT

    def queues_there(self, most: int, negotiated: int, config: bytes) -> int:
        """How many of a device's *most* queues exist for a driver that *negotiated* these features and reads *config*:
        a back-end need not serve more.
        """
        return most

    def shortage(self, wanted: int, peer: int, served: int | None, whose: str = "the device has") -> str | None:
        """What is missing for *wanted* queues, None for nothing. *peer* are the back-end's features, *served* its
        answer to GET_QUEUE_NUM, None where protocol feature MQ was not agreed.
        """
        return self._too_few("queue", wanted, served, whose)

    def patch_config(self, config: bytes, queues: int) -> bytes:
        """The back-end's configuration space with our number of queues: it may serve more than the device was given,
        and a driver takes what it reads there for queues that it finds.
        """
        return config

    def _too_few(self, unit: str, wanted: int, served: int | None, whose: str) -> str | None:
        if wanted > 1 and served is None and self.chosen_queues:
            return f"it serves one {unit}, having no protocol feature MQ; {whose} {wanted}"
        if served is not None and served < wanted:
            return f"it serves {served} {unit}{'' if served == 1 else 's'}, {whose} {wanted}"
        return None

    @property
    def _here(self) -> int:
        """What is answered in this process, by the device or by the registers; rings stop one by one in any
        back-end.
        """
        return self.here | features.OFFERED_BY_PCI


class NetTerms(Terms):
    """A card's: GET_QUEUE_NUM counts its queue pairs."""

    def shortage(self, wanted: int, peer: int, served: int | None, whose: str = "the device has") -> str | None:
        """By pairs."""
        pairs = (wanted + 1) // 2
        short = self._too_few("queue pair", pairs, served, whose)
        if short is None and pairs > 1 and not peer & NET_MQ:
            return f"it does not offer VIRTIO_NET_F_MQ; {whose} {pairs} queue pairs"
        return short


class BlockTerms(Terms):
    """A disk's."""

    def offer(self, wanted: int, peer: int, queues: int) -> int:
        """Several queues are offered where there are several."""
        offered = super().offer(wanted, peer, queues)
        return offered & ~BLK_MQ if queues == 1 else offered

    def patch_config(self, config: bytes, queues: int) -> bytes:
        """num_queues."""
        return _with_u16(config, BLK_QUEUES_OFFSET, lambda _: queues)


class ConsoleTerms(Terms):
    """A console's."""

    def queues_there(self, most: int, negotiated: int, config: bytes) -> int:
        """Two without MULTIPORT, else two for each port and two for control (5.3.2). The driver finds out by itself."""
        if not negotiated & CONSOLE_MULTIPORT:
            return 2
        ports = int.from_bytes(config[CONSOLE_PORTS_OFFSET : CONSOLE_PORTS_OFFSET + 2], "little")
        return min(most, 2 + 2 * max(ports, 1))

    def patch_config(self, config: bytes, queues: int) -> bytes:
        """max_nr_ports."""
        return _with_u16(config, CONSOLE_PORTS_OFFSET, lambda ports: min(ports, queues // 2 - 1))


def _with_u16(config: bytes, offset: int, change: Callable[[int], int]) -> bytes:
    """*config* with another le16 at *offset*, if it is that long."""
    field = config[offset : offset + 2]
    if len(field) < 2:
        return config
    return config[:offset] + change(int.from_bytes(field, "little")).to_bytes(2, "little") + config[offset + 2 :]


WRITABLE = {
    defs.BLOCK: WritableField(offset=BLK_WRITEBACK_OFFSET, size=1, feature=BLK_CONFIG_WCE, kept=True),
    defs.CONSOLE: WritableField(offset=CONSOLE_EMERG_OFFSET, size=4, feature=CONSOLE_EMERG_WRITE, kept=False),
}
KNOWN: dict[int, Terms] = {
    # Frames do not pass through a relay, which would cost more than packed rings save.
    defs.NET: NetTerms(
        device_id=defs.NET, here=NET_ANSWERED_HERE, remote_config=False, keeps_packed=False, chosen_queues=True
    ),
    defs.BLOCK: BlockTerms(
        device_id=defs.BLOCK,
        theirs=BLK_BITS,
        writable=WRITABLE[defs.BLOCK],
        after_loss=AfterLoss.KEEP,
        chosen_queues=True,
    ),
    defs.CONSOLE: ConsoleTerms(
        device_id=defs.CONSOLE,
        theirs=sum(feature.mask for feature in features.CONSOLE),
        writable=WRITABLE[defs.CONSOLE],
    ),
    # Commands of a target that is not known may not be repeated. Nor does anybody finish the buffers for its events,
    # for which a relay would wait.
    defs.SCSI: Terms(device_id=defs.SCSI, after_loss=AfterLoss.RESET, chosen_queues=True),
}


@runtime_checkable
class OwnTerms(Protocol):
    """A device that says itself on which terms another process has its data."""

    @property
    def terms(self) -> Terms:
        """They are the same for the device's whole life."""


def terms_of(device: VirtioDevice) -> Terms:
    """Those of *device*: its own, else those of its kind."""
    if isinstance(device, OwnTerms):
        return device.terms
    kind = device.device_id
    theirs = sum(feature.mask for feature in features.DEVICE_TABLES.get(kind, ()))
    return KNOWN.get(kind) or Terms(device_id=kind, theirs=theirs)
