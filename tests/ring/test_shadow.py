"""acrn_dm.ring.shadow: the driver's side of two rings without a table."""

import mmap

import pytest

from acrn_dm.ring.layout import U16, USED_ELEMENT
from acrn_dm.ring.shadow import ALIGNMENT, ShadowRing, shadow_layout


def test_rings_of_several_queues_do_not_share_a_cache_line() -> None:
    first = shadow_layout(0, 4)
    second = shadow_layout(first.end, 4)
    starts = [first.avail, first.used, second.avail, second.used]
    assert starts == sorted({start // ALIGNMENT * ALIGNMENT for start in starts})
    assert first.used >= first.avail + 4 + 2 * 4 + 2
    assert second.avail >= first.used + 4 + 8 * 4 + 2


def test_ring_of_a_former_connection_is_empty_again() -> None:
    memory, layout = mmap.mmap(-1, 4096), shadow_layout(0, 4)
    memory[:] = b"\xff" * 4096
    ring = ShadowRing(memory, layout)
    assert ring.used() == []
    ring.add([(3, b"")])
    assert U16.unpack_from(memory, layout.avail_idx_at) == (1,)
    assert U16.unpack_from(memory, layout.avail_entry_at(0)) == (3,)


def test_indices_go_round_without_losing_a_head() -> None:
    memory, layout = mmap.mmap(-1, 4096), shadow_layout(0, 4)
    ring = ShadowRing(memory, layout)
    for i in range(65540):
        ring.add([(i % 4, b"")])
        assert U16.unpack_from(memory, layout.avail_entry_at(i)) == (i % 4,)
        USED_ELEMENT.pack_into(memory, layout.used_element_at(i), i % 4, i)
        U16.pack_into(memory, layout.used_idx_at, (i + 1) & 0xFFFF)
        assert ring.used() == [(i % 4, i)]


@pytest.mark.parametrize("index", [5, 0x8000, 0xFFFF])
def test_used_index_further_than_the_ring_is_long_raises_value_error(index: int) -> None:
    memory, layout = mmap.mmap(-1, 4096), shadow_layout(0, 4)
    ring = ShadowRing(memory, layout)
    U16.pack_into(memory, layout.used_idx_at, index)
    with pytest.raises(ValueError, match=f"jumped by {index}"):
        ring.used()
