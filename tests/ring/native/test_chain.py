"""Chain: reading, writing, views, and the end of its life."""

import os
import pickle

import pytest

from acrn_dm._fastring import Chain, MemoryMap, SplitRing
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import RingLayout
from tests.ring.fastring_rig import (
    DATA,
    HIGH,
    RING,
    Rig,
)


def test_chain_read_follows_the_descriptors_and_stops_at_the_end() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"hello ")
    rig.memory.write(HIGH, b"world")
    rig.offer([(DATA, 6), (HIGH, 5)], [])
    chain = rig.pop()
    assert (chain.read(8), chain.read_offset, chain.read(8), chain.read(8)) == (b"hello wo", 8, b"rld", b"")


def test_chain_read_without_length_returns_the_rest() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"abcdef")
    rig.offer([(DATA, 6)], [])
    chain = rig.pop()
    chain.read(2)
    assert chain.read() == b"cdef"


def test_chain_write_fills_descriptors_in_order_and_counts() -> None:
    rig = Rig()
    rig.offer([], [(DATA, 2), (HIGH, 4)])
    chain = rig.pop()
    assert (chain.write(b"abc"), chain.written, chain.write(b"defgh"), chain.written) == (3, 3, 3, 6)
    assert (rig.memory.read(DATA, 2), rig.memory.read(HIGH, 4)) == (b"ab", b"cdef")


def test_chain_write_at_reaches_the_status_byte_and_counts_to_its_end() -> None:
    rig = Rig()
    rig.offer([(DATA, 16)], [(DATA + 16, 8), (HIGH, 1)])
    chain = rig.pop()
    chain.write_at(chain.writable_bytes - 1, b"\x02")
    assert (rig.memory.read(HIGH, 1), chain.written) == (b"\x02", 9)


def test_chain_write_at_before_what_is_written_keeps_the_count() -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    chain.write(b"12345678")
    chain.write_at(0, b"ab")
    assert (rig.memory.read(DATA, 8), chain.written) == (b"ab345678", 8)


@pytest.mark.parametrize(("offset", "data"), [(8, b"x"), (7, b"xy"), (-1, b"x"), (0, b"123456789"), (2**40, b"x")])
def test_chain_write_at_outside_raises_value_error_and_writes_nothing(offset: int, data: bytes) -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    chain = rig.pop()
    with pytest.raises(ValueError, match="not within"):
        chain.write_at(offset, data)
    assert (rig.memory.read(DATA, 9), chain.written) == (bytes(9), 0)


def test_chain_views_have_the_descriptors_lengths_and_direction() -> None:
    rig = Rig()
    rig.offer([(DATA, 3), (HIGH, 2)], [(DATA + 16, 7)])
    chain = rig.pop()
    assert [(len(v), v.readonly) for v in chain.readable()] == [(3, True), (2, True)]
    assert [(len(v), v.readonly) for v in chain.writable()] == [(7, False)]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, -1, [b"abc", b"de"]), (1, 3, [b"bc", b"d"]), (3, -1, [b"de"]), (5, -1, []), (9, 4, []), (0, 0, [])],
)
def test_chain_readable_cuts_views_at_offset_and_length(offset: int, length: int, expected: list[bytes]) -> None:
    rig = Rig()
    rig.memory.write(DATA, b"abc")
    rig.memory.write(HIGH, b"de")
    rig.offer([(DATA, 3), (HIGH, 2)], [])
    assert [bytes(v) for v in rig.pop().readable(offset, length)] == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, -1), (0, -2)])
def test_chain_views_of_negative_range_raise_value_error(offset: int, length: int) -> None:
    rig = Rig()
    rig.offer([(DATA, 3)], [])
    with pytest.raises(ValueError, match="negative"):
        rig.pop().readable(offset, length)


def test_chain_readv_into_writable_views_then_advance_reports_the_bytes() -> None:
    rig = Rig()
    head = rig.offer([], [(DATA, 3), (HIGH, 8)])
    chain = rig.pop()
    source, sink = os.pipe()
    os.write(sink, b"12345")
    chain.advance(os.readv(source, chain.writable()))
    os.close(source)
    os.close(sink)
    rig.complete(chain)
    assert rig.memory.read(DATA, 3) + rig.memory.read(HIGH, 2) == b"12345"
    assert rig.driver.used() == [(head, 5)]


@pytest.mark.parametrize("n", [9, -1, 2**33])
def test_chain_advance_past_the_end_raises_value_error(n: int) -> None:
    rig = Rig()
    rig.offer([], [(DATA, 8)])
    with pytest.raises(ValueError, match="advance"):
        rig.pop().advance(n)


def test_chain_copy_large_enough_to_release_the_gil_is_whole() -> None:
    ram = bytearray(1 << 20)
    ram[0x80000:] = os.urandom(0x80000)
    memory = MemoryMap([(0, ram)])
    layout = RingLayout.at(RING, 2)
    driver = DriverRing(memory, layout)
    ring = SplitRing(memory, size=2, desc=layout.desc, avail=layout.avail, used=layout.used)
    driver.add_chain([(0x80000, 0x80000)], [(0x10000, 0x60000)])
    driver.publish()
    (chain,) = ring.pop_batch()
    chain.write(chain.read())
    assert ram[0x10000:0x70000] == ram[0x80000:0xE0000]


def test_pushed_chain_and_its_views_are_dead() -> None:
    rig = Rig()
    rig.offer([(DATA, 1)], [(HIGH, 1)])
    chain = rig.pop()
    view = chain.writable()[0]
    rig.ring.push(chain)
    with pytest.raises(ValueError, match="released"):
        view[0] = 1
    for use in (chain.read, chain.readable, chain.writable, lambda: chain.write(b"x"), lambda: chain.advance(1)):
        with pytest.raises(ValueError, match="no longer in flight"):
            use()


def test_push_while_a_view_is_in_use_raises_buffer_error_and_pushes_nothing() -> None:
    rig = Rig()
    rig.offer([], [(HIGH, 4)])
    chain = rig.pop()
    in_use = pickle.PickleBuffer(chain.writable()[0])  # holds the buffer as a readv under way does
    with pytest.raises(BufferError):
        rig.ring.push(chain)
    assert rig.ring.used_idx == 0
    in_use.release()
    rig.ring.push(chain)


def test_chain_made_by_hand_is_dead() -> None:
    with pytest.raises(ValueError, match="no longer in flight"):
        Chain().read()


def test_chain_says_where_its_writable_part_lies() -> None:
    rig = Rig()
    rig.offer([(DATA, 16)], [(HIGH + 8, 4), (DATA + 64, 8), (DATA + 72, 2)])
    assert rig.pop().writable_ranges() == [(HIGH + 8, 4), (DATA + 64, 10)]


def test_chain_without_writable_part_lies_nowhere() -> None:
    rig = Rig()
    rig.offer([(DATA, 16)], [])
    chain = rig.pop()
    assert chain.writable_ranges() == []
    rig.ring.push(chain)
    with pytest.raises(ValueError):
        chain.writable_ranges()
