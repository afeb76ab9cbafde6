"""acrn_dm.ring.factory: the device's and the driver's side of what was negotiated."""

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import GuestError
from acrn_dm.ring import features
from acrn_dm.ring.factory import make_driver_ring, make_ring, ring_format
from acrn_dm.ring.layout import RingLayout
from acrn_dm.ring.position import RingPosition


@attrs.frozen
class Queue:
    layout: RingLayout
    position: RingPosition


def scene(negotiated: int, start: int = 0):  # type: ignore[no-untyped-def]
    memory = MemoryMap([(0, bytearray(0x1_0000))])
    layout = ring_format(negotiated).lay_out(0x1000, 8, 4)
    driver = make_driver_ring(negotiated, layout, memory, start=start)
    position = driver.position if negotiated & features.PACKED else RingPosition(start)
    return driver, make_ring(negotiated, Queue(layout, position), memory)


@pytest.mark.parametrize("start", [0, 65535])
@pytest.mark.parametrize("negotiated", [0, features.EVENT_IDX, features.PACKED, features.PACKED | features.EVENT_IDX])
def test_both_sides_of_one_negotiation_understand_each_other(negotiated: int, start: int) -> None:
    driver, ring = scene(negotiated, start)
    for _ in range(3):
        assert not ring.enable_kicks()
        head = driver.add_chain([(0x8000, 4)], [(0x9000, 4)])
        driver.publish()
        assert driver.wants_kick()
        assert ring.waiting()
        (chain,) = ring.pop_batch()
        ring.push(chain, 4)
        assert ring.publish()
        assert driver.used() == [(head, 4)]
        assert driver.enable_interrupts() is False
        assert not ring.waiting()


def test_indirect_chain_is_taken_only_where_that_was_negotiated() -> None:
    driver, ring = scene(features.INDIRECT_DESC)
    driver.add_chain([(0x8000, 4)], indirect_table_gpa=0x7000)
    driver.publish()
    assert [chain.readable_bytes for chain in ring.pop_batch()] == [4]
    driver, ring = scene(0)
    driver.add_chain([(0x8000, 4)], indirect_table_gpa=0x7000)
    driver.publish()
    with pytest.raises(GuestError, match="not negotiated"):
        ring.pop_batch()


def test_ring_served_by_another_goes_on_with_what_was_in_flight() -> None:
    driver, ring = scene(0, start=65534)
    for _ in range(3):
        driver.add_chain([(0x8000, 4)])
    driver.publish()
    first, second, _ = ring.pop_batch()
    ring.push(first, 0)
    ring.publish()
    assert ring.position == RingPosition(65535)
    again = make_ring(0, Queue(driver.layout, ring.position), driver.memory)
    assert next(chain.head for chain in again.pop_batch()) == second.head


def test_position_of_another_format_is_the_drivers_fault() -> None:
    with pytest.raises(GuestError, match="none of a split ring"):
        scene(0, start=1 << 16)


@pytest.mark.parametrize("negotiated", [0, features.PACKED], ids=["split", "packed"])
def test_ring_that_nobody_has_used_begins_where_its_format_says(negotiated: int) -> None:
    form = ring_format(negotiated)
    layout = form.lay_out(0x1000, 8, 4)
    memory = MemoryMap([(0, bytearray(0x1_0000))])
    assert make_driver_ring(negotiated, layout, memory).position == form.start
    assert make_ring(negotiated, Queue(layout, form.start), memory).position == form.start


@pytest.mark.parametrize(("size", "takes"), [(0, 0), (1, 3), (3, 2), (8, 3), (100, 2), (32768, 3), (32769, 0)])
def test_sizes_that_a_format_takes(size: int, takes: int) -> None:
    """Conformance row d.packed.size_any."""
    assert [ring_format(f).takes_size(size) for f in (0, features.PACKED)] == [takes & 1 != 0, takes & 2 != 0]


def test_positions_that_a_peer_says() -> None:
    assert ring_format(0).position_said(65535) == RingPosition(65535)
    with pytest.raises(ValueError, match="split"):
        ring_format(0).position_said(65536)
    packed = ring_format(features.PACKED)
    assert packed.position_said(0x8005_0007) == RingPosition(0x8005_0007)
    assert packed.position_said(0x8005) == RingPosition(0x8005_8005)  # DPDK says the lower half
    with pytest.raises(ValueError, match="no ring"):
        packed.position_said(1 << 32)


def test_packed_ring_does_not_say_what_was_returned() -> None:
    form = ring_format(features.PACKED)
    layout = form.lay_out(0x1000, 8, 4)
    memory = MemoryMap([(0, bytearray(0x1_0000))])
    assert form.used_position(memory, layout) is None
    assert not form.idle(memory, layout)
