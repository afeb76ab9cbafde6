"""Feature bits as tables: names, what each requires, and the check that FEATURES_OK stands for (spec 2.2, 6).

A requirement is written as a conjunction of alternatives: ``((17,), (60, 57))`` reads "bit 17, and bit 60 or 57".
"""

from collections.abc import Iterable

from acrn_dm.base.records import frozen
from acrn_dm.ring import features as ring
from acrn_dm.virtio import defs

Requirement = tuple[tuple[int, ...], ...]


@frozen
class Feature:
    """One feature bit; *section* is where the specification (1.2, or as noted) defines it."""

    bit: int
    name: str
    section: str
    requires: Requirement = ()

    @property
    def mask(self) -> int:
        """The bit as a mask."""
        return 1 << self.bit


def _table(section: str, rows: Iterable[tuple[int, str] | tuple[int, str, Requirement]]) -> tuple[Feature, ...]:
    return tuple(Feature(row[0], row[1], section, row[2] if len(row) == 3 else ()) for row in rows)


ANY_LAYOUT = 1 << 27  # 6.3, legacy: a transitional device MUST offer it
INDIRECT_DESC = ring.INDIRECT_DESC
EVENT_IDX = ring.EVENT_IDX
IN_ORDER = ring.IN_ORDER
PACKED = ring.PACKED
VERSION_1 = 1 << 32
ACCESS_PLATFORM = 1 << 33
NOTIFICATION_DATA, NOTIF_CONFIG_DATA, RING_RESET = 1 << 38, 1 << 39, 1 << 40

RING = _table(
    "6",
    (
        (24, "NOTIFY_ON_EMPTY"),
        (27, "ANY_LAYOUT"),
        (28, "INDIRECT_DESC"),
        (29, "EVENT_IDX"),
        (30, "UNUSED"),
        (32, "VERSION_1"),
        (33, "ACCESS_PLATFORM"),
        (34, "RING_PACKED", ((32,),)),
        (35, "IN_ORDER"),
        (36, "ORDER_PLATFORM"),
        (37, "SR_IOV", ((32,),)),
        (38, "NOTIFICATION_DATA"),
        (39, "NOTIF_CONFIG_DATA"),
        (40, "RING_RESET", ((32,),)),
        (41, "ADMIN_VQ", ((32,),)),
    ),
)

NET = _table(
    "5.1.3",
    (
        (0, "CSUM"),
        (1, "GUEST_CSUM"),
        (2, "CTRL_GUEST_OFFLOADS"),
        (3, "MTU"),
        (5, "MAC"),
        (6, "GSO"),
        (7, "GUEST_TSO4", ((1,),)),
        (8, "GUEST_TSO6", ((1,),)),
        (9, "GUEST_ECN", ((7, 8),)),
        (10, "GUEST_UFO", ((1,),)),
        (11, "HOST_TSO4", ((0,),)),
        (12, "HOST_TSO6", ((0,),)),
        (13, "HOST_ECN", ((11, 12),)),
        (14, "HOST_UFO", ((0,),)),
        (15, "MRG_RXBUF"),
        (16, "STATUS"),
        (17, "CTRL_VQ"),
        (18, "CTRL_RX", ((17,),)),
        (19, "CTRL_VLAN", ((17,),)),
        (20, "CTRL_RX_EXTRA"),  # without CTRL_VQ only a SHOULD NOT
        (21, "GUEST_ANNOUNCE", ((17,),)),
        (22, "MQ", ((17,),)),
        (23, "CTRL_MAC_ADDR", ((17,),)),
        (50, "DEVICE_STATS"),  # 1.4
        (51, "HASH_TUNNEL", ((17,), (57, 60))),  # 1.3
        (52, "VQ_NOTF_COAL", ((17,),)),  # 1.3
        (53, "NOTF_COAL", ((17,),)),
        (54, "GUEST_USO4", ((1,),)),
        (55, "GUEST_USO6", ((1,),)),
        (56, "HOST_USO", ((0,),)),
        (57, "HASH_REPORT"),  # without CTRL_VQ only a SHOULD NOT
        (59, "GUEST_HDRLEN"),
        (60, "RSS", ((17,),)),
        (61, "RSC_EXT", ((11, 12),)),
        (62, "STANDBY"),
        (63, "SPEED_DUPLEX"),
        (64, "RSS_CONTEXT", ((17,), (60,))),  # 1.4, as the rest
        (65, "GUEST_UDP_TUNNEL_GSO", ((7,), (8,), (54,), (55,))),
        (66, "GUEST_UDP_TUNNEL_GSO_CSUM", ((65,),)),
        (67, "HOST_UDP_TUNNEL_GSO", ((11,), (12,), (56,))),
        (68, "HOST_UDP_TUNNEL_GSO_CSUM", ((67,),)),
        (69, "OUT_NET_HEADER"),
        (70, "IPSEC"),
    ),
)

BLOCK = _table(
    "5.2.3",
    (
        (0, "BARRIER"),
        (1, "SIZE_MAX"),
        (2, "SEG_MAX"),
        (4, "GEOMETRY"),
        (5, "RO"),
        (6, "BLK_SIZE"),
        (7, "SCSI"),
        (9, "FLUSH"),
        (10, "TOPOLOGY"),
        (11, "CONFIG_WCE"),
        (12, "MQ"),
        (13, "DISCARD"),
        (14, "WRITE_ZEROES"),
        (15, "LIFETIME"),
        (16, "SECURE_ERASE"),
        (17, "ZONED"),  # 1.3
    ),
)

CONSOLE = _table("5.3.3", ((0, "SIZE"), (1, "MULTIPORT"), (2, "EMERG_WRITE")))

BALLOON = _table(
    "5.5.3",
    (
        (0, "MUST_TELL_HOST"),
        (1, "STATS_VQ"),
        (2, "DEFLATE_ON_OOM"),
        (3, "FREE_PAGE_HINT"),
        (4, "PAGE_POISON"),
        (5, "PAGE_REPORTING"),
    ),
)

VSOCK = _table("5.10.3", ((0, "STREAM"), (1, "SEQPACKET"), (2, "NO_IMPLIED_STREAM")))  # bit 2: 1.3
I2C = _table("5.16.3", ((0, "ZERO_LENGTH_REQUEST"),))
GPIO = _table("5.18.3", ((0, "IRQ"),))

DEVICE_TABLES: dict[int, tuple[Feature, ...]] = {
    defs.NET: NET,
    defs.BLOCK: BLOCK,
    defs.CONSOLE: CONSOLE,
    defs.ENTROPY: (),
    defs.BALLOON: BALLOON,
    defs.INPUT: (),
    defs.VSOCK: VSOCK,
    defs.I2C: I2C,
    defs.GPIO: GPIO,
}

MANDATORY = {defs.I2C: 1 << 0}  # 5.16.6.4: the device must reject a driver without it

DEVICE_BITS = ((1 << 24) - 1) | (1 << 41 | 1 << 42) | (((1 << 128) - 1) >> 50 << 50)  # 2.2: bits of the device type
LOW_WORD = 0xFFFF_FFFF  # all that a legacy driver can see or acknowledge (4.1.4.8)

RING_BITS = sum(feature.mask for feature in RING)
OFFERED_BY_TRANSPORT = VERSION_1 | INDIRECT_DESC | EVENT_IDX
# Features that end at the registers: this process keeps what they promise, whoever moves the data, and a back-end never
# hears of them. ACCESS_PLATFORM is among them because the platform is plain: no IOMMU stands before guest memory, so
# that addresses mean the same with it and without.
OFFERED_BY_PCI = RING_RESET | NOTIFICATION_DATA | NOTIF_CONFIG_DATA | ACCESS_PLATFORM


def table(device_id: int) -> tuple[Feature, ...]:
    """Known features of a virtio device id, the ring's included; unknown device types have only the ring's."""
    own = DEVICE_TABLES.get(device_id, ())
    bits = {feature.bit for feature in own}
    return own + tuple(feature for feature in RING if feature.bit not in bits)


def names(device_id: int, features: int) -> list[str]:
    """Names of the set bits, ``bit 77`` for those nobody has named."""
    known = {feature.bit: feature.name for feature in table(device_id)}
    return [known.get(bit, f"bit {bit}") for bit in range(features.bit_length()) if features >> bit & 1]


def unmet(device_id: int, features: int) -> list[Feature]:
    """Features in *features* whose prerequisites are not in it (2.2.1, and the requirement lists of each device)."""
    return [f for f in table(device_id) if features & f.mask and not _satisfied(f.requires, features)]


def prune(device_id: int, features: int) -> int:
    """Drop features with unmet prerequisites until none is left: for legacy drivers, which can't be refused."""
    while broken := unmet(device_id, features):
        for feature in broken:
            features &= ~feature.mask
    return features


def refusal(device_id: int, offered: int, accepted: int) -> str | None:
    """Why FEATURES_OK must stay clear for a modern driver that accepted *accepted*; None when it may be set (3.1.1 step
    5).

    Refused are bits that were not offered, broken dependencies, a driver without what is mandatory for the device type,
    and one without VERSION_1 (6.2 allows that refusal; such a driver uses the legacy interface).
    """
    if accepted & ~offered:
        return f"not offered: {', '.join(names(device_id, accepted & ~offered))}"
    if not accepted & VERSION_1:
        return "VERSION_1 is not accepted"
    if broken := unmet(device_id, accepted):
        return f"prerequisites missing for {', '.join(feature.name for feature in broken)}"
    if missing := MANDATORY.get(device_id, 0) & ~accepted:
        return f"mandatory, and not accepted: {', '.join(names(device_id, missing))}"
    return None


def offer_problem(device_id: int, features: int) -> str | None:
    """What is wrong with the *features* a device implementation wants to offer; None when nothing is (2.2.2)."""
    if features & ~DEVICE_BITS:
        return f"{', '.join(names(device_id, features & ~DEVICE_BITS))} is not a bit of the device type"
    if broken := unmet(device_id, features):
        return f"offers {broken[0].name} without its prerequisites"
    if missing := MANDATORY.get(device_id, 0) & ~features:
        return f"does not offer {', '.join(names(device_id, missing))}, which is mandatory"
    return None


def _satisfied(requires: Requirement, features: int) -> bool:
    return all(any(features >> bit & 1 for bit in alternatives) for alternatives in requires)
