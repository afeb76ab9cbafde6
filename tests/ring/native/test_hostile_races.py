"""SplitRing against a driver that rewrites or breaks what is in use, and what a broken ring leaves intact."""

import threading

import pytest

from acrn_dm._fastring import MemoryMap, SplitRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import DESC
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import DATA, OUTSIDE, TOUCHING_END, Rig, drain, expect_broken


@pytest.mark.parametrize("batch", [1, 4])
def test_row_22_a_bad_chain_is_met_at_the_same_place_whatever_the_batch_size(batch: int) -> None:
    """CVE-2020-10725 (DPDK): the batch path left a check out."""
    rig = Rig(size=8)
    for _ in range(3):
        rig.offer([(DATA, 1)], [])
    rig.offer([(OUTSIDE, 1)], [])
    rig.offer([(DATA, 1)], [])
    with pytest.raises(GuestError, match="descriptor 3: the buffer at gpa 0x50000000 leaves RAM"):
        drain(rig.ring, batch)
    assert rig.driver.used() == [(0, 0), (1, 0), (2, 0)]


def test_row_23_row_24_fields_changed_after_the_pop_have_no_effect() -> None:
    """CVE-2024-51563 (bhyve), DPDK 48cae0bfa6: len and flags were read a second time after their check."""
    rig = Rig()
    head = rig.offer([], [(DATA, 4)])
    chain = rig.pop()
    rig.driver.write_desc(head, OUTSIDE, 0xFFFFFFFF, NEXT, 7)
    rig.driver.set_avail_entry(0, 0xFFFF)
    assert (chain.writable_bytes, chain.write(b"abcdefgh")) == (4, 4)
    rig.complete(chain)
    assert (rig.memory.read(DATA, 5), rig.driver.used_element(0)) == (b"abcd\0", (head, 4))


def test_row_23_row_24_fields_flipping_while_the_device_walks_give_one_value_or_the_other() -> None:
    """A second thread flips len and flags; the walk runs without the GIL. A length checked is the length used."""
    rig = Rig(size=2)
    ring = rig.ring
    stop = threading.Event()
    good, bad = DESC.pack(TOUCHING_END - 16, 16, WRITE, 0), DESC.pack(TOUCHING_END - 16, 0xFFFF, NEXT, 0xFFFF)

    def flip() -> None:
        while not stop.is_set():
            rig.memory.write(rig.layout.desc, bad)
            rig.memory.write(rig.layout.desc, good)

    rig.memory.write(rig.layout.desc, good)
    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        for _ in range(300):
            rig.driver.make_available(0)
            rig.driver.publish()
            try:
                chain = rig.pop()
            except GuestError:
                ring = SplitRing(
                    rig.memory,
                    size=2,
                    desc=rig.layout.desc,
                    avail=rig.layout.avail,
                    used=rig.layout.used,
                    next_avail=rig.driver.published_avail,
                )
                rig.ring.close()
                rig.ring = ring
                continue
            assert (chain.readable_bytes, chain.writable_bytes) in {(0, 16)}
            rig.complete(chain)
    finally:
        stop.set()
        flipper.join()


def test_chains_popped_before_the_fault_are_still_readable_but_cannot_be_pushed() -> None:
    rig = Rig()
    rig.memory.write(DATA, b"kept")
    rig.offer([(DATA, 4)], [])
    chain = rig.pop()
    rig.offer([(OUTSIDE, 4)], [])
    expect_broken(rig, "leaves RAM")
    with pytest.raises(GuestError, match="leaves RAM"):
        rig.ring.push(chain)
    assert chain.read() == b"kept"


def test_broken_ring_closes_and_a_new_one_in_its_place_works() -> None:
    rig = Rig()
    rig.offer([(OUTSIDE, 4)], [])
    expect_broken(rig, "leaves RAM")
    rig.ring.close()
    rig.memory.close()
    assert Rig().ring.pop_batch() == []


def test_rings_laid_over_each_other_corrupt_only_the_guests_own_memory() -> None:
    memory = MemoryMap([(0, bytearray(4096))])
    memory.write(0, b"\x01\x00" * 64)
    ring = SplitRing(memory, size=4, desc=0, avail=0, used=0)
    with pytest.raises(GuestError):
        drain(ring)
    assert memory.read(128, 4096 - 128) == bytes(4096 - 128)
