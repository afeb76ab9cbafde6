"""The walk against a driver that breaks the rules: loops, indirect tables, order.

Rows 1-39 of the table of other device models' bugs that concern a split ring's walk have a test each, in the
``test_hostile_*`` files, by number and with the bug's identifier. What must come of it: GuestError, which the transport
turns into DEVICE_NEEDS_RESET, in bounded time, with nothing outside RAM touched. Rows about packed rings, IN_ORDER or a
device's parser are not for here.
"""

import pytest

from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import (
    DATA,
    HIGH,
    OUTSIDE,
    REGION_BYTES,
    RING,
    TABLE,
    TOUCHING,
    TOUCHING_END,
    Rig,
    expect_broken,
    table_of,
)


@pytest.mark.parametrize("size", [2, 8, 256])
def test_row_01_circular_chain_breaks_the_ring(size: int) -> None:
    """CVE-2019-9547 (SPDK): circular chain not detected."""
    rig = Rig(size=size)
    rig.offer_raw((DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0))
    expect_broken(rig, f"after {size} descriptors, so it loops")


def test_row_02_self_loop_of_length_zero_ends() -> None:
    """DPDK cc7301908c: a descriptor of length 0 that is its own next never ended."""
    rig = Rig()
    rig.offer_raw((DATA, 0, NEXT | WRITE, 0))
    expect_broken(rig, "loops")


@pytest.mark.parametrize("n_entries", [1, 2, 64, 4096])
def test_row_03_loop_in_an_indirect_table_breaks_the_ring(n_entries: int) -> None:
    """DPDK 4e282bc6c5, 450539b47e: loop through an indirect table."""
    rig = Rig(indirect=True)
    rig.memory.write(TOUCHING - 16, table_of((DATA, 1, NEXT, 0)))
    rig.offer_raw((TOUCHING - 16, 16 * n_entries, INDIRECT, 0))
    expect_broken(rig, f"after {min(n_entries, 1024)} descriptors")


def test_row_03_loop_in_a_table_after_direct_descriptors_counts_them_too() -> None:
    rig = Rig(size=8, indirect=True)
    rig.memory.write(TOUCHING, table_of((DATA, 1, NEXT, 0)))
    rig.offer_raw((DATA, 1, NEXT, 1), (TOUCHING, REGION_BYTES, INDIRECT, 0))
    expect_broken(rig, "after 1024 descriptors")


def test_row_04_head_and_next_outside_the_table_break_the_ring_at_every_step() -> None:
    """DPDK 6ec1778134: the control queue's walk had no index bound and no counter. Here one walk serves every queue."""
    rig = Rig(size=8)
    rig.offer_raw((DATA, 1, NEXT, 1), (DATA, 1, NEXT, 8))
    expect_broken(rig, "descriptor 1: next is 8")


@pytest.mark.parametrize("head", [8, 0x7FFF, 0xFFFF])
def test_row_04_head_outside_the_table_breaks_the_ring(head: int) -> None:
    rig = Rig(size=8)
    rig.offer_raw(head=head)
    expect_broken(rig, f"entry 0 names descriptor {head}, outside the table")


@pytest.mark.parametrize("next_", [3, 0xFFFF])
def test_row_04_next_outside_an_indirect_table_breaks_the_ring(next_: int) -> None:
    rig = Rig(size=8, indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 1, NEXT, next_)))
    rig.offer_raw((TABLE, 48, INDIRECT, 0))
    expect_broken(rig, f"next is {next_}")


@pytest.mark.parametrize(
    "lengths", [(0, 3, 3, 3), (3, 0, 3, 3), (3, 3, 3, 0), (0, 0, 0, 0)], ids=["first", "middle", "last", "all"]
)
def test_row_09_row_10_zero_length_descriptors_are_skipped(lengths: tuple[int, ...]) -> None:
    """QEMU 1e7aed7014: endless loop. crosvm c2b694fb3: refused though harmless; we skip them, wherever they point."""
    rig = Rig(size=8)
    rig.offer([(DATA if n else OUTSIDE, n) for n in lengths[:2]], [(HIGH if n else OUTSIDE, n) for n in lengths[2:]])
    chain = rig.pop()
    assert (chain.readable_bytes, chain.writable_bytes) == (sum(lengths[:2]), sum(lengths[2:]))
    assert chain.read() == bytes(sum(lengths[:2]))


@pytest.mark.parametrize("n_entries", [65536, 2**24])
def test_row_12_indirect_table_larger_than_memory_breaks_the_ring(n_entries: int) -> None:
    """CVE-2011-2212 (QEMU): indirect table larger than the buffer it was read into."""
    rig = Rig(indirect=True)
    rig.offer_raw((TABLE, 16 * n_entries, INDIRECT, 0))
    expect_broken(rig, "indirect table not in RAM")


def test_row_12_indirect_chain_longer_than_the_limit_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.offer([], [(DATA, 1)] * 1025, table=TOUCHING)
    expect_broken(rig, "after 1024 descriptors")


@pytest.mark.parametrize("length", [0, 8, 15, 17, 0xFFFFFFFF])
def test_row_13_indirect_length_not_a_multiple_of_16_breaks_the_ring(length: int) -> None:
    """QEMU 7423192912, 6dbdc271f56b: an indirect table of length 0 met an assertion."""
    rig = Rig(indirect=True)
    rig.offer_raw((TABLE, length, INDIRECT, 0))
    expect_broken(rig, f"indirect table of {length} bytes")


def test_row_14_indirect_without_negotiation_breaks_the_ring() -> None:
    """QEMU ac8fc4ccac: indirect accepted without negotiation."""
    rig = Rig(indirect=False)
    rig.offer([(DATA, 1)], [], table=TABLE)
    expect_broken(rig, "not negotiated")


@pytest.mark.parametrize("offset", [1, 2, 7, 8])
def test_row_15_indirect_table_at_an_odd_address_works(offset: int) -> None:
    """rust-vmm 922f2e5: demanded an alignment that the specification does not."""
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abc")
    rig.offer([(DATA, 3)], [(HIGH, 5)], table=TABLE + offset)
    chain = rig.pop()
    assert (chain.read(), chain.writable_bytes) == (b"abc", 5)


def test_row_16_indirect_then_direct_in_one_batch_have_each_its_own_bounds() -> None:
    """QEMU bbc1c327d7: the bound of an indirect table was still in force for the next chain."""
    rig = Rig(size=8, indirect=True)
    rig.offer([(DATA, 1)], [], table=TABLE)
    rig.offer([(DATA, 1)] * 5, [])
    rig.offer([(DATA, 1)] * 12, [], table=TABLE + 0x100)
    assert [c.readable_bytes for c in rig.ring.pop_batch()] == [1, 5, 12]


def test_row_16_direct_chain_after_a_long_table_is_bounded_by_the_queue_again() -> None:
    rig = Rig(size=8, indirect=True)
    rig.offer([(DATA, 1)] * 12, [], table=TABLE)
    rig.pop()
    rig.driver.write_desc(1, DATA, 1, NEXT, 1)
    rig.driver.make_available(1)
    rig.driver.publish()
    expect_broken(rig, "after 8 descriptors")


def test_indirect_table_in_an_indirect_table_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((TABLE, 16, INDIRECT, 0)))
    rig.offer_raw((TABLE, 16, INDIRECT, 0))
    expect_broken(rig, "indirect itself")


def test_indirect_table_that_is_the_descriptor_table_itself_is_still_nested() -> None:
    rig = Rig(indirect=True)
    rig.offer_raw((RING, 16 * 8, INDIRECT, 0))
    expect_broken(rig, "indirect itself")


def test_row_32_indirect_with_next_breaks_the_ring() -> None:
    """CVE-2026-16457 (QEMU, there on a packed ring): INDIRECT and NEXT in one descriptor."""
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 1, 0, 0)))
    rig.offer_raw((TABLE, 16, INDIRECT | NEXT, 1))
    expect_broken(rig, "both INDIRECT and NEXT")


@pytest.mark.parametrize("table", [OUTSIDE, TOUCHING_END - 16, HIGH - 16, 2**64 - 16])
def test_indirect_table_partly_outside_ram_breaks_the_ring(table: int) -> None:
    rig = Rig(indirect=True)
    rig.offer_raw((table, 32, INDIRECT, 0))
    expect_broken(rig, "indirect table not in RAM")


@pytest.mark.parametrize("table", [None, TABLE])
def test_row_28_readable_after_writable_breaks_the_ring(table: int | None) -> None:
    """crosvm c8c25c69d: readable after writable was not refused everywhere."""
    rig = Rig(indirect=True)
    chain = [(DATA, 4, WRITE | NEXT, 1), (DATA, 4, 0, 0)]
    if table is None:
        rig.offer_raw(*chain)
    else:
        rig.memory.write(table, table_of(*chain))
        rig.offer_raw((table, 32, INDIRECT, 0))
    expect_broken(rig, "descriptor 1: device-readable after")


def test_row_28_readable_in_a_table_after_writable_direct_descriptors_breaks_the_ring() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(TABLE, table_of((DATA, 4, 0, 0)))
    rig.offer_raw((DATA, 4, WRITE | NEXT, 1), (TABLE, 16, INDIRECT, 0))
    expect_broken(rig, "device-readable after")
