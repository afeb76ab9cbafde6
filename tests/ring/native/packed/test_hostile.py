"""PackedRing with a driver that breaks the protocol: what it is blamed for, and what it gains by it."""

import mmap

import pytest

from acrn_dm._fastring import MemoryMap, PackedRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.ring.packed.layout import packed_layout
from tests.ring.fastring_rig import DATA, HIGH, OUTSIDE, TABLE, TOUCHING, expect_broken, table_of
from tests.ring.packed_rig import AVAIL, INDIRECT, NEXT, USED, WRITE, PackedRig


@pytest.mark.parametrize("flags", [0, USED, AVAIL | USED, NEXT, 0x7F7F])
def test_packed_desc_avail_change_is_needed(flags: int) -> None:
    """Conformance row packed.desc.avail_change: whatever else stands there, such a descriptor is not used."""
    rig = PackedRig()
    rig.driver.write_desc(0, DATA, 4, 1, flags)
    assert rig.ring.pop_batch() == []
    assert rig.ring.waiting() is False


def test_descriptor_of_the_lap_before_is_not_used_again() -> None:
    rig = PackedRig(2)
    for _ in range(2):
        rig.offer([(DATA, 1)], [])
        rig.complete(rig.pop())
    rig.driver.write_desc(0, DATA, 4, 0, AVAIL)
    assert rig.ring.pop_batch() == []


def test_list_that_goes_on_with_what_is_not_available() -> None:
    rig = PackedRig()
    rig.driver.write_desc(1, DATA, 4, 3, AVAIL | USED)
    rig.driver.write_desc(0, DATA, 4, 3, AVAIL | NEXT)
    expect_broken(rig, "a list goes on here")


def test_row_1_loop_by_next_ends_after_one_lap() -> None:
    """Rows 1 and 2 of vmm-anchors 3b: NEXT everywhere, lengths of 0, and wrap marks as the next lap would have them."""
    rig = PackedRig(4, start=1)
    for slot, marks in enumerate((USED, AVAIL, AVAIL, AVAIL)):
        rig.driver.write_desc(slot, 0, 0, 0, marks | NEXT)
    expect_broken(rig, "a list goes on here")


def test_ring_all_of_which_is_in_flight_gives_no_more() -> None:
    """Row 6 of vmm-anchors 3b: descriptors that the device has not returned, made available once more."""
    rig = PackedRig(2)
    rig.driver.poke([(DATA, 4, 0, 0)], head=1)
    rig.driver.poke([(DATA, 4, 0, 0)], head=2)
    assert len(rig.ring.pop_batch()) == 2
    rig.driver.write_desc(0, DATA, 4, 3, USED)  # available in the second lap
    expect_broken(rig, "while all 2 are available or in flight")


def test_row_29_buffer_id_in_flight_is_refused() -> None:
    """Row 29 of vmm-anchors 3b."""
    rig = PackedRig(4)
    rig.driver.poke([(DATA, 4, 0, 0)], head=7)
    chain = rig.pop()
    rig.driver.poke([(DATA, 4, 0, 0)], head=7)
    expect_broken(rig, "buffer id 7, whose chain is still in flight")
    assert chain.readable_bytes == 4


@pytest.mark.parametrize(
    ("descriptors", "message"),
    [
        ([(DATA, 4, WRITE, 0), (DATA, 4, 0, 0)], "device-readable after a device-writable"),
        ([(OUTSIDE, 4, 0, 0)], "leaves RAM"),
        ([(2**64 - 1, 2, 0, 0)], "leaves RAM"),
        ([(DATA, 4, 0, 0), (TABLE, 16, INDIRECT, 0)], "INDIRECT in a list"),
        ([(TABLE, 16, INDIRECT, 0), (DATA, 4, 0, 0)], "both INDIRECT and NEXT"),
    ],
    ids=["order", "outside", "wrap", "indirect_last", "indirect_first"],
)
def test_list_that_no_driver_may_write(descriptors: list[tuple[int, int, int, int]], message: str) -> None:
    """Rows 18, 20, 28 and 32 of vmm-anchors 3b."""
    rig = PackedRig(indirect=True)
    linked = [(gpa, length, flags | NEXT, i) for gpa, length, flags, i in descriptors[:-1]]
    rig.driver.poke([*linked, descriptors[-1]])
    expect_broken(rig, message)


def test_chain_of_more_than_32_bits_in_sum() -> None:
    """Row 21 of vmm-anchors 3b: each of the buffers is RAM, their sum is no length."""
    memory = MemoryMap([(0, mmap.mmap(-1, 1 << 30))])
    layout = packed_layout(0, 8)
    driver = PackedDriverRing(memory, layout)
    ring = PackedRing(memory, size=8, desc=layout.desc, driver=layout.avail, device=layout.used)
    driver.add_chain([(0, 1 << 30)] * 3 + [(1, (1 << 30) - 1)])
    driver.add_chain([(0, 1 << 30)] * 4)
    driver.publish()
    assert [chain.readable_bytes for chain in ring.pop_batch()] == [2**32 - 1]
    with pytest.raises(GuestError, match="more than 2\\^32"):
        ring.pop_batch()


@pytest.mark.parametrize("length", [0, 8, 15, 17])
def test_row_13_indirect_table_of_no_whole_descriptors(length: int) -> None:
    """Row 13 of vmm-anchors 3b."""
    rig = PackedRig(indirect=True)
    rig.driver.poke([(TABLE, length, INDIRECT, 0)])
    expect_broken(rig, "not a positive multiple of 16")


def test_row_14_indirect_that_was_not_negotiated() -> None:
    """Row 14 of vmm-anchors 3b."""
    rig = PackedRig()
    rig.driver.poke([(TABLE, 16, INDIRECT, 0)])
    expect_broken(rig, "not negotiated")


def test_row_12_indirect_table_longer_than_a_chain_may_be() -> None:
    """Rows 12 and 31 of vmm-anchors 3b: the limit is a chain's, whatever the table has."""
    rig = PackedRig(indirect=True)
    rig.memory.write(TOUCHING, table_of(*[(DATA, 1, 0, 0)] * 1025))
    rig.driver.poke([(TOUCHING, 1024 * 16, INDIRECT, 0)], head=1)
    assert rig.pop().readable_bytes == 1024
    rig.driver.poke([(TOUCHING, 1025 * 16, INDIRECT, 0)], head=2)
    expect_broken(rig, "after 1024 descriptors")


def test_indirect_table_outside_ram() -> None:
    rig = PackedRig(indirect=True)
    rig.driver.poke([(HIGH - 16, 32, INDIRECT, 0)])
    expect_broken(rig, "indirect table not in RAM")


@pytest.mark.parametrize("at", [TABLE + 1, TOUCHING - 24])
def test_packed_indirect_seq_and_its_reserved_fields(at: int) -> None:
    """Conformance rows d.packed.indirect_seq and d.packed.indirect_write_ign: entries in sequence, of whose flags WRITE
    alone counts; at an odd address, and across touching regions (rows 15 and 17 of vmm-anchors 3b).
    """
    rig = PackedRig(indirect=True)
    rig.memory.write(DATA, b"abcd")
    # PACKED: le16 id, le16 flags
    table = table_of((DATA, 2, 0xFFFF, NEXT | INDIRECT | AVAIL), (DATA + 2, 2, 3, USED), (HIGH, 4, 9, WRITE | NEXT))
    rig.memory.write(at, table)
    rig.driver.poke([(at, 48, INDIRECT | WRITE, 0)], head=4)
    chain = rig.pop()
    assert (chain.head, chain.read(), chain.writable_bytes) == (4, b"abcd", 4)


def test_row_9_lengths_of_zero_are_skipped() -> None:
    """Rows 9 and 10 of vmm-anchors 3b."""
    rig = PackedRig()
    descriptors = [(OUTSIDE, 0, NEXT, 0), (DATA, 3, NEXT, 0), (OUTSIDE, 0, NEXT | WRITE, 0), (OUTSIDE, 0, 0, 0)]
    rig.driver.poke(descriptors, head=1)
    chain = rig.pop()
    assert (chain.readable_bytes, chain.writable_bytes) == (3, 0)


def test_chains_before_a_malformed_one_are_served() -> None:
    """Row 22 of vmm-anchors 3b: what a device sees does not depend on its batch size."""
    rig = PackedRig()
    rig.driver.poke([(DATA, 4, 0, 0)], head=1)
    rig.driver.poke([(OUTSIDE, 4, 0, 0)], head=2)
    (chain,) = rig.ring.pop_batch()
    assert chain.head == 1
    with pytest.raises(GuestError, match="leaves RAM"):
        rig.ring.pop_batch()
    assert rig.ring.broken


def test_row_37_full_ring_is_not_empty() -> None:
    """Row 37 of vmm-anchors 3b."""
    rig = PackedRig(8, start=11)
    for i in range(8):
        rig.offer([(DATA + i, 1)], [])
    assert len(rig.ring.pop_batch()) == 8
