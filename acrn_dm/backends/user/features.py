"""Features of a device whose data plane is in another process, and whose its configuration space is.

Three kinds of feature bits: those that concern data or rings need both the device (or the ring code of the driver's
side) and the back-end; those that are answered in this process need only the device, and the back-end never hears of
them; and of devices that this process does not implement at all when they are elsewhere (a disk without an image), the
back-end's word is enough.

VIRTIO_NET_F_MQ is of the first kind although the control queue is served here: back-ends take it for the announcement
of more than one queue pair (DPDK forgets the rings of the others without it).
"""

from collections.abc import Callable

import attrs

from acrn_dm.backends.wire import message as wire
from acrn_dm.backends.wire.message import ProtocolFeature
from acrn_dm.base.records import frozen
from acrn_dm.virtio import defs, features

NET_MAC, NET_STATUS, NET_CTRL_VQ, NET_CTRL_RX, NET_CTRL_VLAN = 1 << 5, 1 << 16, 1 << 17, 1 << 18, 1 << 19
NET_CTRL_RX_EXTRA, NET_ANNOUNCE, NET_MQ, NET_CTRL_MAC = 1 << 20, 1 << 21, 1 << 22, 1 << 23
NET_MTU, NET_SPEED_DUPLEX = 1 << 3, 1 << 63
ANSWERED_HERE = {
    defs.NET: NET_MAC
    | NET_STATUS
    | NET_CTRL_VQ
    | NET_CTRL_RX
    | NET_CTRL_VLAN
    | NET_CTRL_RX_EXTRA
    | NET_ANNOUNCE
    | NET_CTRL_MAC
    | NET_MTU
    | NET_SPEED_DUPLEX,
}
# 5.2.3: everything up to WRITE_ZEROES but BARRIER and SCSI; later fields are past the end of our configuration space.
BLK_MQ, BLK_CONFIG_WCE = 1 << 12, 1 << 11
BLK_BITS = 0x7FFF & ~(1 << 0 | 1 << 3 | 1 << 7 | 1 << 8)
BLK_QUEUES_OFFSET, BLK_WRITEBACK_OFFSET = 34, 32  # num_queues (le16) and writeback (u8), 5.2.4
CONSOLE_MULTIPORT, CONSOLE_EMERG_WRITE = 1 << 1, 1 << 2
CONSOLE_PORTS_OFFSET, CONSOLE_EMERG_OFFSET = 4, 8  # max_nr_ports (le16) and emerg_wr, 5.3.4


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


WRITABLE = {
    defs.BLOCK: WritableField(offset=BLK_WRITEBACK_OFFSET, size=1, feature=BLK_CONFIG_WCE, kept=True),
    defs.CONSOLE: WritableField(offset=CONSOLE_EMERG_OFFSET, size=4, feature=CONSOLE_EMERG_WRITE, kept=False),
}
OPAQUE = 0  # the id of no kind: all that the device is, the back-end says
CHOSEN_QUEUES = (defs.NET, defs.BLOCK, defs.SCSI)  # by an option; others have as many as their kind needs
TRACKED = (defs.BLOCK, defs.SCSI)  # requests may complete in any order: without INFLIGHT_SHMFD they can't be resumed


def tracked(device_id: int, in_order: bool | None) -> bool:
    """Whether requests may complete in any order, so that the rings alone do not tell which are in flight. Of a device
    that is known by its back-end only, what it says of IN_ORDER tells.
    """
    return in_order is not True if device_id == OPAQUE else device_id in TRACKED


def keeps_packed(device_id: int) -> bool:
    """Whether packed rings are gone on with after the end of a back-end, by its notes or a relay. Frames do not pass
    through a relay, which would cost more than such rings save.
    """
    return device_id != defs.NET


def remote_config(device_id: int) -> bool:
    """Whether the back-end owns the configuration space."""
    return device_id != defs.NET


def protocol(device_id: int) -> ProtocolFeature:
    """Protocol features this device has a use for."""
    wanted = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.RESET_DEVICE | ProtocolFeature.STATUS
    wanted |= ProtocolFeature.CONFIGURE_MEM_SLOTS
    if remote_config(device_id):
        wanted |= ProtocolFeature.CONFIG | ProtocolFeature.BACKEND_REQ
    if device_id in TRACKED or device_id == OPAQUE:
        wanted |= ProtocolFeature.INFLIGHT_SHMFD
    return wanted


def offer(device_id: int, wanted: int, peer: int, queues: int) -> int:
    """Features to offer where the device and the ring have *wanted*, the back-end *peer*, with *queues* queues."""
    peer &= ~wire.PROTOCOL_FEATURES
    offered = wanted & (peer | _here(device_id)) | peer & _theirs(device_id)
    if device_id == defs.BLOCK and queues == 1:
        offered &= ~BLK_MQ
    return features.prune(device_id, offered)


def told(device_id: int, negotiated: int) -> int:
    """Those of the *negotiated* features that are the back-end's business."""
    return negotiated & ~_here(device_id)


def needed_of_peer(device_id: int, negotiated: int) -> int:
    """Those of the *negotiated* features that the back-end has to know."""
    return told(device_id, negotiated) & ~features.ANY_LAYOUT


def queues_there(device_id: int, most: int, negotiated: int, config: bytes) -> int:
    """How many of a device's *most* queues exist for a driver that *negotiated* these features and reads *config*.

    A console's are two without MULTIPORT, else two for each port and two for control (5.3.2). The driver finds out by
    itself, so a back-end need not serve more.
    """
    if device_id != defs.CONSOLE:
        return most
    if not negotiated & CONSOLE_MULTIPORT:
        return 2
    ports = int.from_bytes(config[CONSOLE_PORTS_OFFSET : CONSOLE_PORTS_OFFSET + 2], "little")
    return min(most, 2 + 2 * max(ports, 1))


def shortage(device_id: int, wanted: int, peer: int, served: int | None, whose: str = "the device has") -> str | None:
    """What is missing for *wanted* queues, None for nothing. *peer* are the back-end's features, *served* its answer to
    GET_QUEUE_NUM, which counts pairs for a network device, None where protocol feature MQ was not agreed.
    """
    unit = "queue"
    if device_id == defs.NET:
        unit, wanted = "queue pair", (wanted + 1) // 2
    if wanted > 1 and served is None and device_id in CHOSEN_QUEUES:
        return f"it serves one {unit}, having no protocol feature MQ; {whose} {wanted}"
    if served is not None and served < wanted:
        return f"it serves {served} {unit}{'' if served == 1 else 's'}, {whose} {wanted}"
    if device_id == defs.NET and wanted > 1 and not peer & NET_MQ:
        return f"it does not offer VIRTIO_NET_F_MQ; {whose} {wanted} queue pairs"
    return None


def patch_config(device_id: int, config: bytes, queues: int) -> bytes:
    """The back-end's configuration space with our number of queues: it may serve more than the device was given, and a
    driver takes what it reads there for queues that it finds.
    """
    if device_id == defs.BLOCK:
        return _with_u16(config, BLK_QUEUES_OFFSET, lambda _: queues)
    if device_id == defs.CONSOLE:
        return _with_u16(config, CONSOLE_PORTS_OFFSET, lambda ports: min(ports, queues // 2 - 1))
    return config


def _with_u16(config: bytes, offset: int, change: Callable[[int], int]) -> bytes:
    """*config* with another le16 at *offset*, if it is that long."""
    field = config[offset : offset + 2]
    if len(field) < 2:
        return config
    return config[:offset] + change(int.from_bytes(field, "little")).to_bytes(2, "little") + config[offset + 2 :]


def _here(device_id: int) -> int:
    """What is answered in this process, by the device or by the registers; rings stop one by one in any back-end. An
    opaque device that returns chains in order does so by itself, whether it hears of IN_ORDER or not.
    """
    in_order = features.IN_ORDER if device_id == OPAQUE else 0
    return ANSWERED_HERE.get(device_id, 0) | features.OFFERED_BY_PCI | in_order


def _theirs(device_id: int) -> int:
    if device_id == defs.NET:
        return 0
    if device_id == defs.BLOCK:
        return BLK_BITS
    if device_id == OPAQUE:
        return features.DEVICE_BITS
    return sum(feature.mask for feature in features.DEVICE_TABLES.get(device_id, ()))
