"""acrn_dm.ring.layout: the numbers of virtio 1.4, 2.7."""

import pytest

from acrn_dm.ring.layout import RingLayout, idle, is_queue_size, legacy_ring_addresses, used_position
from acrn_dm.ring.model import ModelMemory
from acrn_dm.ring.position import RingPosition

LAYOUT = RingLayout(size=8, desc=0x1000, avail=0x2000, used=0x3000)


def test_parts_have_the_lengths_and_alignments_of_the_specification() -> None:
    parts = [(p.name, p.gpa, p.length, p.alignment) for p in LAYOUT.parts()]
    assert parts == [
        ("descriptor table", 0x1000, 128, 16),
        ("available ring", 0x2000, 4 + 2 * 8 + 2, 2),
        ("used ring", 0x3000, 4 + 8 * 8 + 2, 4),
    ]


def test_parts_without_event_idx_end_before_the_event_index() -> None:
    assert [p.length for p in LAYOUT.parts(event_idx=False)] == [128, 20, 68]


def test_parts_laid_out_one_after_the_other_do_not_overlap() -> None:
    layout = RingLayout.at(0x1000, 8)
    desc, avail, used = layout.parts()
    assert desc.gpa + desc.length <= avail.gpa
    assert avail.gpa + avail.length <= used.gpa
    assert used.gpa % used.alignment == 0
    assert layout.end == used.gpa + used.length


@pytest.mark.parametrize(
    ("size", "used"),
    [(1, 0x5000_1000), (128, 0x5000_1000), (256, 0x5000_2000), (1024, 0x5000_5000)],
)
def test_legacy_used_ring_begins_at_the_next_page(size: int, used: int) -> None:
    """2.7.2: 128 entries and their available ring take 2310 bytes, 256 take 4614."""
    assert legacy_ring_addresses(0x5_0000, size) == (0x5000_0000, 0x5000_0000 + 16 * size, used)


@pytest.mark.parametrize(
    ("value", "good"), [(0, False), (1, True), (3, False), (256, True), (32768, True), (65536, False), (-8, False)]
)
def test_queue_size_is_a_power_of_two_up_to_32768(value: int, good: bool) -> None:
    assert is_queue_size(value) is good


def test_entries_are_found_modulo_the_size_and_the_event_indices_behind_them() -> None:
    assert [LAYOUT.avail_entry_at(i) for i in (0, 7, 8, 65535)] == [0x2004, 0x2012, 0x2004, 0x2012]
    assert [LAYOUT.used_element_at(i) for i in (0, 7, 8)] == [0x3004, 0x303C, 0x3004]
    assert (LAYOUT.used_event_at, LAYOUT.avail_event_at) == (0x2014, 0x3044)


@pytest.mark.parametrize(("avail", "used", "expected"), [(0, 0, True), (7, 7, True), (7, 6, False), (2, 65535, False)])
def test_ring_is_idle_when_all_that_was_available_was_returned(avail: int, used: int, expected: bool) -> None:
    memory = ModelMemory([(0, bytearray(0x4000))])
    memory.write(0x2002, avail.to_bytes(2, "little"))
    memory.write(0x3002, used.to_bytes(2, "little"))
    assert idle(memory, LAYOUT) is expected
    assert used_position(memory, LAYOUT) == RingPosition(used)


@pytest.mark.parametrize("gap", [0, 4096])
def test_least_aligned_parts_have_the_alignment_they_need_and_no_more(gap: int) -> None:
    layout = RingLayout.least_aligned(0x1000, 8, gap)
    for part in layout.parts():
        assert part.gpa % part.alignment == 0
        assert part.gpa % (2 * part.alignment) != 0
    desc, avail, used = layout.parts()
    assert avail.gpa - (desc.gpa + desc.length) >= gap
    assert used.gpa - (avail.gpa + avail.length) >= gap
