"""The receive filter (virtio 5.1.6.5.1 to 5.1.6.5.3): which frames a driver wants, by destination and by VLAN tag.

A frozen value: each command makes another, so that whoever moves frames has one or the other and never a mixture.
"""

from collections.abc import Collection
from typing import Any

import attrs

from acrn_dm.base.records import frozen

BROADCAST = b"\xff" * 6
ADDRESS = 6  # bytes
MAX_ADDRESSES = 1024  # of a table; with more, all stations or groups pass, as they may
TAGGED = b"\x81\x00"  # 802.1Q
ENTRIES = 4  # bytes of a table's count, le32


@frozen(kw_only=True)
class ReceiveFilter:
    """The filter of one card, which lets everything pass at first. *vlans* None: tags are not looked at. The modes are
    those of CTRL_RX.
    """

    mac: bytes
    promisc: bool = True
    allmulti: bool = False
    alluni: bool = False
    nomulti: bool = False
    nouni: bool = False
    nobcast: bool = False
    stations: frozenset[bytes] | None = frozenset()  # None: more than are remembered
    groups: frozenset[bytes] | None = frozenset()
    vlans: frozenset[int] | None = None
    known: frozenset[bytes] = attrs.field(init=False, repr=False, eq=False)  # addresses that pass by themselves

    @known.default
    def _addresses_that_pass(self) -> frozenset[bytes]:
        stations = () if self.nouni else (self.mac, *(to for to in self.stations or () if not to[0] & 1))
        groups = () if self.nomulti else tuple(to for to in self.groups or () if to[0] & 1 and to != BROADCAST)
        return frozenset((*stations, *groups, *(() if self.nobcast else (BROADCAST,))))

    @property
    def open(self) -> bool:
        """Whether everything passes."""
        return self.promisc and self.vlans is None

    def passes(self, frame: memoryview) -> bool:
        """Whether the driver wants *frame*, of at least 14 bytes."""
        # Byte by byte: a slice would cost more than all the rest.
        if self.vlans is not None and frame[12] == TAGGED[0] and frame[13] == TAGGED[1] and not self._tag_passes(frame):
            return False
        if self.promisc:  # 5.1.6.5.1.1: it overrides the other modes
            return True
        to = bytes(frame[:ADDRESS])
        if to in self.known:
            return True
        if to[0] & 1:
            return to != BROADCAST and not self.nomulti and (self.allmulti or self.groups is None)
        return not self.nouni and (self.alluni or self.stations is None)

    def _tag_passes(self, frame: memoryview) -> bool:
        return len(frame) >= 16 and int.from_bytes(frame[14:16], "big") & 0xFFF in (self.vlans or ())

    def with_mode(self, name: str, on: bool) -> "ReceiveFilter":
        """The filter with the mode of CTRL_RX called *name* switched."""
        modes: dict[str, Any] = {name: on}
        return attrs.evolve(self, **modes)

    def with_tables(self, data: bytes) -> "ReceiveFilter | None":
        """The filter after MAC_TABLE_SET with *data*: stations, then groups; None where *data* is not two tables."""
        stations, data = _table(data)
        groups, data = _table(data)
        if stations is None or groups is None or data:
            return None
        return attrs.evolve(self, stations=_remembered(stations), groups=_remembered(groups))

    def with_vlan(self, vlan: int, wanted: bool) -> "ReceiveFilter | None":
        """The filter after VLAN_ADD or VLAN_DEL; None for what is no VLAN."""
        if vlan > 0xFFF:
            return None
        vlans = self.vlans or frozenset()
        return attrs.evolve(self, vlans=vlans | {vlan} if wanted else vlans - {vlan})


def _remembered(addresses: Collection[bytes]) -> frozenset[bytes] | None:
    return frozenset(addresses) if len(addresses) <= MAX_ADDRESSES else None


def _table(data: bytes) -> tuple[list[bytes] | None, bytes]:
    """One table at the start of *data*, and what follows it; None for what is cut off."""
    count = int.from_bytes(data[:ENTRIES], "little")
    entries, rest = data[ENTRIES : ENTRIES + ADDRESS * count], data[ENTRIES + ADDRESS * count :]
    if len(data) < ENTRIES or len(entries) != ADDRESS * count:
        return None, b""
    return [entries[at : at + ADDRESS] for at in range(0, len(entries), ADDRESS)], rest
