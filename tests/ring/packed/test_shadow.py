"""acrn_dm.ring.packed.shadow: a whole ring in a file, and the descriptors that go into it."""

import itertools
import mmap

import pytest

from acrn_dm._fastring import MemoryMap, PackedRing
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from acrn_dm.ring.packed.layout import PACKED_DESC, packed_parts
from acrn_dm.ring.packed.shadow import PackedShadowRing, packed_shadow_layout
from acrn_dm.ring.shadow import ALIGNMENT
from tests.ring.fastring_rig import DATA
from tests.ring.packed_rig import AVAIL, USED, PackedRig

BUFFER = 0x8000


def raw(*descriptors: tuple[int, int, int]) -> bytes:
    """(gpa, length, flags) as a driver wrote them, whose ids and marks are of another ring."""
    return b"".join(PACKED_DESC.pack(gpa, n, 0x77, flags | USED) for gpa, n, flags in descriptors)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_areas_of_several_queues_share_no_cache_line(size: int) -> None:
    first = packed_shadow_layout(0, size)
    second = packed_shadow_layout(first.end, size)
    parts = [part for layout in (first, second) for part in packed_parts(layout)]
    assert all(part.gpa % ALIGNMENT == 0 for part in parts)
    assert all(a.gpa + a.length <= b.gpa for a, b in itertools.pairwise(parts))


def test_ring_of_a_former_connection_is_empty_again() -> None:
    memory, layout = mmap.mmap(-1, 0x1_0000), packed_shadow_layout(0, 3)
    memory[:4096] = b"\xff" * 4096
    assert PackedShadowRing(memory, layout).used() == []
    assert memory[layout.desc : layout.desc + 48] == bytes(48)


def test_chains_of_any_length_go_round_and_come_back_in_any_order() -> None:
    """By a native ring on the other side."""
    memory, layout = mmap.mmap(-1, 0x1_0000), packed_shadow_layout(0, 5)
    shadow = PackedShadowRing(memory, layout)
    ring = PackedRing(MemoryMap([(0, memory)]), size=5, desc=layout.desc, driver=layout.avail, device=layout.used)
    for n in range(20):
        shadow.add([(0xFFFF, raw((BUFFER, 4, DESC_F_NEXT), (BUFFER + 4, 4, DESC_F_WRITE)))])
        shadow.add([(n, raw((BUFFER, 4, 0), (BUFFER, 4, DESC_F_WRITE), (BUFFER, 1, DESC_F_WRITE | DESC_F_NEXT)))])
        first, second = ring.pop_batch()
        assert [(c.head, c.readable_bytes, c.writable_bytes) for c in (first, second)] == [(0xFFFF, 4, 4), (n, 4, 5)]
        ring.push(second, 3)
        ring.push(first, 2)
        assert ring.publish()
        assert shadow.used() == [(n, 3), (0xFFFF, 2)]


def test_descriptor_that_refers_to_a_table_stays_one() -> None:
    memory, layout = mmap.mmap(-1, 0x1_0000), packed_shadow_layout(0, 2)
    PackedShadowRing(memory, layout).add([(4, raw((BUFFER, 32, DESC_F_INDIRECT)))])
    assert PACKED_DESC.unpack_from(memory, layout.desc) == (BUFFER, 32, 4, DESC_F_INDIRECT | AVAIL)


def test_ring_gives_out_the_descriptors_of_a_chain_over_its_end() -> None:
    rig = PackedRig(4, start=3)
    rig.offer([(DATA, 3)], [(DATA + 8, 5)])
    chain = rig.pop()
    fields = [one[:2] for one in PACKED_DESC.iter_unpack(rig.ring.descriptors(chain))]
    assert fields == [(DATA, 3), (DATA + 8, 5)]
    rig.complete(chain)
    with pytest.raises(ValueError, match="not in flight"):
        rig.ring.descriptors(chain)
