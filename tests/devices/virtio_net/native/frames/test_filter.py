"""The receive filter in C against ``ReceiveFilter``: the same frames pass."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.devices.virtio_net.native.frames._filter import FrameFilter
from acrn_dm.devices.virtio_net.receive_filter import BROADCAST, MAX_ADDRESSES, ReceiveFilter

OWN = bytes.fromhex("020000000001")
NEAR = [OWN, BROADCAST, bytes(6), *(bytes((first, 0, 0, 0, 0, last)) for first in (0, 1, 2, 3) for last in (1, 2))]
ADDRESSES = st.one_of(st.sampled_from(NEAR), st.binary(min_size=6, max_size=6))
TABLES = st.one_of(st.none(), st.frozensets(ADDRESSES, max_size=5))
VLANS = st.one_of(st.none(), st.frozensets(st.sampled_from([0, 1, 63, 64, 0xFFF]), max_size=4))
MODES = st.fixed_dictionaries(
    {name: st.booleans() for name in ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")}
)
TAGS = st.sampled_from(
    [b"", b"\x08\x00", *(b"\x81\x00" + tag for tag in (b"", b"\0", b"\0\1", b"\xe0\x40", b"\x0f\xff"))]
)


@settings(max_examples=300, deadline=None)
@given(modes=MODES, stations=TABLES, groups=TABLES, vlans=VLANS, to=ADDRESSES, tag=TAGS)
def test_same_frames_pass(
    *,
    modes: dict[str, bool],
    stations: frozenset[bytes] | None,
    groups: frozenset[bytes] | None,
    vlans: frozenset[int] | None,
    to: bytes,
    tag: bytes,
) -> None:
    wanted = ReceiveFilter(mac=OWN, stations=stations, groups=groups, vlans=vlans, **modes)
    frame = (to + OWN + tag).ljust(14, b"\0")
    assert FrameFilter(wanted).wants(frame) == wanted.passes(memoryview(frame))


def test_largest_tables_are_known_whole() -> None:
    many = [bytes((2 * (n % 2), 7, 0, 0, n >> 8, n & 0xFF)) for n in range(MAX_ADDRESSES)]
    groups = [bytes((1, *address[1:])) for address in many]
    wanted = attrs.evolve(ReceiveFilter(mac=OWN, promisc=False), stations=frozenset(many), groups=frozenset(groups))
    filtered = FrameFilter(wanted)
    assert all(filtered.wants(address + bytes(8)) for address in (*many, *groups, OWN, BROADCAST))
    assert not any(filtered.wants(bytes((4, *address[1:])) + bytes(8)) for address in many)
