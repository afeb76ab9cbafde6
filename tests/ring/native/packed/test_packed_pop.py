"""Where the quick walk of a packed ring hands over to that of any chain: at each descriptor, for each reason, across
the end of the ring, and with usual chains before and behind it in the batch. What comes out is what the model finds.
"""

import struct

import pytest

from acrn_dm._fastring import PackedRing
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.model import ModelMemory
from acrn_dm.ring.packed.model import ModelPackedRing
from tests.ring.fastring_rig import DATA, HIGH, OUTSIDE, TABLE, TOUCHING
from tests.ring.packed_rig import AVAIL, INDIRECT, NEXT, USED, WRITE, PackedRig

SIZE = 23
LONG = 12  # descriptors
STARTS = [0, SIZE - 5, SIZE - 1, 2 * SIZE - 3]  # with either wrap counter, and ends of the ring within the long chain
ODD = {  # (gpa, length, flags) in the place of one descriptor
    "usual": (HIGH + 64, 4, WRITE),
    "across regions": (TOUCHING - 2, 4, WRITE),
    "in the third region": (TOUCHING, 4, WRITE),
    "empty": (OUTSIDE, 0, 0),
    "outside": (OUTSIDE, 1, WRITE),
    "out of order": (DATA, 1, 0),
    "indirect": (TABLE, 16, INDIRECT),
    "not available": (HIGH, 1, WRITE | AVAIL),
    "used": (HIGH, 1, WRITE | AVAIL | USED),
    "too much": (HIGH, 0xFFFFFFFF, WRITE),
}

Seen = list[tuple[int, int, int, bytes, int]]


def described(device: PackedRing | ModelPackedRing) -> tuple[Seen, str, int]:
    """What is found: framing, order and bytes of each chain, the error that follows, if any, and what is next."""
    found: Seen = []
    error = ""
    try:
        while chains := device.pop_batch():
            found += [(c.head, c.readable_bytes, c.writable_bytes, c.read(), c.write(b"x" * 99)) for c in chains]
    except GuestError as e:
        error = str(e)
    return found, error, device.next_avail


def model(rig: PackedRig, start: int = 0) -> ModelPackedRing:
    memory = ModelMemory(list(zip((0, TOUCHING, HIGH), rig.mappings, strict=True)))
    return ModelPackedRing(memory, rig.layout, indirect=True, start=start)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("table", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("at", [0, 1, 2, 7, 8, LONG - 1])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_descriptor_anywhere_is_what_it_is_in_the_model(odd: str, at: int, table: bool, start: int) -> None:
    rig = PackedRig(SIZE, indirect=True, start=start)
    rig.memory.write(DATA, b"abcdefgh")
    rig.offer([(DATA, 3)], [(HIGH, 1)])
    chain = [(DATA + i, 1, 0) for i in range(2)] + [(HIGH + i, 1, WRITE) for i in range(LONG - 2)]
    chain[at] = ODD[odd]
    if table:
        entries = [struct.pack("<QIHH", gpa, length, 0, flags) for gpa, length, flags in chain]
        rig.memory.write(TABLE, b"".join(entries))
        chain = [(TABLE, 16 * LONG, INDIRECT)]
    last = len(chain) - 1
    rig.driver.poke([(*one, 0) if i == last else (*one[:2], one[2] | NEXT, 0) for i, one in enumerate(chain)], head=9)
    rig.offer([(DATA, 5)], [])
    (native, error, behind), (oracle, wrong, there) = described(rig.ring), described(model(rig, start))
    assert (native, bool(error)) == (oracle, bool(wrong))
    assert rig.ring.in_flight == len(native)
    assert error or behind == there
    if error and at > 1 and odd != "too much":
        assert f"descriptor {at if table else (start + 2 + at) % SIZE}" in error


@pytest.mark.parametrize("start", [0, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_what_is_in_flight_or_not_shown_is_not_taken_again(length: int, start: int) -> None:
    """A driver that makes everything available once more, whole chains or a part of one: blamed where that begins."""
    rig = PackedRig(5, start=start)
    rig.offer([(DATA + i, 1) for i in range(3)], [])
    rig.offer([(DATA, 1)], [])
    first, _ = rig.ring.pop_batch()
    rig.ring.push(first)  # and not shown
    slots = range(start + 4, start + 4 + length)
    for slot in slots:
        marks = USED if slot // 5 % 2 else AVAIL
        rig.driver.write_desc(slot, DATA, 1, 4, marks | (NEXT if slot < slots[-1] else 0))
    if length == 1:
        assert [chain.head for chain in rig.ring.pop_batch()] == [4]
        rig.driver.write_desc(start + 5, DATA, 1, 3, USED if (start + 5) // 5 % 2 else AVAIL)
    with pytest.raises(GuestError, match=f"descriptor {start % 5} is available again, while all 5 are"):
        rig.ring.pop_batch()


@pytest.mark.parametrize("buffers", [1, 3])
def test_fault_of_a_whole_chain_ends_the_batch_before_it(buffers: int) -> None:
    """... and keeps nothing of it: the chains before are returned, and the next call blames the driver."""
    rig = PackedRig(8, indirect=True)
    head = rig.offer([], [(HIGH, 4)])
    rig.driver.poke([(DATA, 1, NEXT, 0)] * (buffers - 1) + [(DATA, 1, 0, 0)], head=head)
    (chain,) = rig.ring.pop_batch()
    assert rig.ring.next_avail == 0x8001
    assert rig.ring.in_flight == 1
    with pytest.raises(GuestError, match=f"descriptor 1: buffer id {head}, whose chain is still in flight"):
        rig.ring.pop_batch()
    assert chain.writable_bytes == 4
