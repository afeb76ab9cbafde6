"""The receive filter as a value: every mode against every other, tables, and bytes that are no tables."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.virtio_net.receive_filter import BROADCAST, MAX_ADDRESSES, ReceiveFilter

pytestmark = pytest.mark.both_formats

OWN, STATION, GROUP, OTHER = (
    bytes.fromhex(text) for text in ("020000000001", "020000000002", "01005e000001", "0e" * 6)
)
MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")


def frame(to: bytes, tag: int | None = None) -> memoryview:
    head = to + OWN + (b"\x08\0" if tag is None else b"\x81\0" + struct.pack(">H", tag) + b"\x08\0")
    return memoryview(head.ljust(60, b"\0"))


def table(*addresses: bytes) -> bytes:
    return len(addresses).to_bytes(4, "little") + b"".join(addresses)


def closed(**modes: bool) -> ReceiveFilter:
    return ReceiveFilter(mac=OWN, **({"promisc": False} | modes))


@pytest.mark.parametrize("modes", list(itertools.product((False, True), repeat=len(MODES))))
def test_each_set_of_modes_passes_what_5_1_6_5_1_says(modes: tuple[bool, ...]) -> None:
    on = dict(zip(MODES, modes, strict=True))
    tables = closed(**on).with_tables(table(STATION) + table(GROUP))
    assert tables is not None
    passes = {
        name: tables.passes(frame(to))
        for name, to in {"own": OWN, "station": STATION, "other": OTHER, "group": GROUP, "all": BROADCAST}.items()
    }
    known = on["promisc"] or not on["nouni"]
    assert passes == {
        "own": known,
        "station": known,
        "other": on["promisc"] or (on["alluni"] and not on["nouni"]),
        "group": on["promisc"] or not on["nomulti"],
        "all": on["promisc"] or not on["nobcast"],
    }


def test_group_that_is_in_no_table_passes_with_allmulti_only() -> None:
    assert not closed().passes(frame(GROUP))
    assert closed(allmulti=True).passes(frame(GROUP))


@pytest.mark.parametrize("promisc", [True, False])
def test_tags_are_looked_at_once_there_is_a_table_whatever_the_modes(promisc: bool) -> None:
    at_first = closed(promisc=promisc)
    assert at_first.passes(frame(OWN, tag=7))
    added = at_first.with_vlan(7, True)
    assert added is not None
    assert added.passes(frame(OWN, tag=7 | 5 << 13)), "priority is no part of the name"
    assert not added.passes(frame(OWN, tag=8))
    assert added.passes(frame(OWN))
    gone = added.with_vlan(7, False)
    assert gone is not None
    assert not gone.passes(frame(OWN, tag=7))
    assert added.with_vlan(0x1000, True) is None


def test_table_that_is_too_long_to_remember_lets_all_pass() -> None:
    many = [struct.pack(">HI", 0x0200, n) for n in range(MAX_ADDRESSES + 1)]
    wide = closed().with_tables(table(*many) + table())
    assert wide is not None
    assert wide.passes(frame(OTHER))
    assert not wide.passes(frame(GROUP))


@pytest.mark.parametrize(
    "data",
    [b"", table(), table() + b"\0\0\0", table(STATION)[:-1] + table(), table() * 3, b"\xff\xff\xff\xff" + table()],
)
def test_what_is_not_two_tables_changes_nothing(data: bytes) -> None:
    assert closed().with_tables(data) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_two_tables_or_none(data: bytes) -> None:
    made = closed().with_tables(data)
    if made is not None and made.stations is not None and made.groups is not None:
        assert len(data) >= 8 + 6 * (len(made.stations) + len(made.groups))
