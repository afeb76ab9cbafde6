"""The tally of a ring that others serve: which chains are in flight, or that nobody knows."""

import mmap
import random

import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.base.errors import GuestError
from acrn_dm.ring.layout import USED_ELEMENT
from acrn_dm.ring.native.notes.split import take_over
from acrn_dm.ring.native.tally._tally import RingTally
from acrn_dm.ring.position import RingPosition
from tests.ring.native.tally.tally_rig import RAM, SIZE, Rig


def test_chains_in_flight_are_known_in_their_order_whatever_came_back_first() -> None:
    rig = Rig()
    rig.send(5)
    assert rig.tally.sample() == 5
    rig.give_back(3, 0)
    rig.send(1)
    assert rig.tally.sample() == 2
    assert rig.tally.in_flight() == rig.out
    assert len(rig.out) == 4


def test_chain_that_came_and_went_between_two_looks_is_not_in_flight() -> None:
    rig = Rig()
    rig.send(3)
    rig.give_back(1)
    rig.send(1)  # which has the head that came back
    rig.tally.sample()
    assert rig.tally.in_flight() == rig.out


def test_head_that_is_in_use_again_counts_as_the_later_chain() -> None:
    rig = Rig()
    rig.send(2)
    rig.tally.sample()
    rig.give_back(0)
    rig.send(1)
    rig.tally.sample()
    assert rig.out == [1, 0]
    assert rig.tally.in_flight() == rig.out


def test_order_is_that_of_the_used_index_or_not() -> None:
    rig = Rig()
    rig.send(4)
    rig.tally.sample()
    assert rig.tally.in_order()
    rig.give_back(0)
    rig.tally.sample()
    assert rig.tally.in_order()
    rig.give_back(1)
    rig.tally.sample()
    assert not rig.tally.in_order()
    rig.give_back(0)
    rig.tally.sample()
    assert rig.tally.in_order()


def test_entries_that_passed_unseen_make_it_unsure_until_nothing_is_in_flight() -> None:
    rig = Rig()
    rig.send(2)
    rig.tally.sample()
    rig.lap()
    rig.tally.sample()
    assert not rig.tally.sure
    with pytest.raises(ValueError, match="unseen"):
        rig.tally.in_flight()
    with pytest.raises(ValueError, match="unseen"):
        rig.tally.in_order()
    rig.give_back(0)
    rig.tally.sample()
    assert not rig.tally.sure
    rig.give_back(0)
    rig.tally.sample()
    assert rig.tally.sure
    assert rig.tally.in_flight() == []


def test_it_is_sure_again_when_it_has_seen_as_many_come_as_are_in_flight() -> None:
    """A ring that is never empty is known again, too."""
    rig = Rig()
    rig.send(3)
    rig.tally.sample()
    rig.lap()
    rig.tally.sample()
    for known in range(3):
        assert not rig.tally.sure
        rig.give_back(0)
        rig.tally.sample()
        assert rig.tally.sure == (known == 2)
        rig.send(1)
        rig.tally.sample()
    assert rig.tally.in_flight() == rig.out
    assert len(rig.out) == 3


def test_head_that_goes_round_between_two_looks_stays_as_unknown_as_it_was() -> None:
    """It may have come back and be in flight again, or have been sent and be back."""
    rig = Rig()
    rig.send(1)
    rig.tally.sample()
    rig.lap()
    rig.tally.sample()
    rig.give_back(0)
    rig.send(1)
    rig.tally.sample()
    assert not rig.tally.sure


def test_entries_that_are_written_over_before_they_are_shown_are_not_believed() -> None:
    """A driver may enter a batch, of a fourth of the ring at most, before it moves the index."""
    rig = Rig()
    rig.send(13)
    rig.give_back(*[1] * 12)
    rig.send(4, show=False)  # over the first entry
    rig.tally.sample()
    assert not rig.tally.sure or rig.tally.in_flight() == rig.out
    assert not rig.tally.sure


def test_elements_that_are_written_over_before_they_are_shown_are_not_believed() -> None:
    """By a device that enters a batch before it moves its index."""
    rig = Rig()
    rig.send(10)
    rig.tally.sample()
    rig.send(6)
    rig.give_back(*[4] * 10)
    rig.send(4)
    for number, head in enumerate(rig.out):
        rig.memory.write(rig.layout.used_element_at(rig.used + number), USED_ELEMENT.pack(head, 0))
    rig.tally.sample()
    assert not rig.tally.sure


def test_entries_of_three_quarters_of_a_ring_are_good() -> None:
    rig = Rig()
    rig.send(12)
    rig.give_back(*[1] * 11)
    rig.send(4, show=False)
    rig.tally.sample()
    assert rig.tally.in_flight() == rig.out[:1]


def test_entries_that_are_not_returned_are_good_however_many_there_are() -> None:
    rig = Rig()
    rig.send(SIZE)
    rig.tally.sample()
    assert rig.tally.in_flight() == rig.out
    assert len(rig.out) == SIZE


def test_many_elements_are_good_while_no_more_than_a_ring_was_in_flight() -> None:
    rig = Rig()
    rig.send(SIZE)
    rig.tally.sample()
    rig.give_back(*[2] * (SIZE - 2))
    rig.tally.sample()
    assert rig.tally.in_flight() == rig.out[:2]


def test_look_that_comes_late_may_have_missed_a_whole_lap_of_the_index() -> None:
    rig = Rig()
    rig.send(2)
    rig.tally.sample(late=True)
    assert rig.tally.in_flight() == rig.out  # nothing came back, so nothing went round
    rig.give_back(0)
    rig.tally.sample(late=True)
    assert rig.tally.in_flight() == rig.out  # a slow medium
    rig.send(1)
    rig.give_back(0)
    rig.tally.sample(late=True)
    assert not rig.tally.sure


def test_ring_that_does_not_begin_where_it_was_used_last_is_not_known() -> None:
    rig = Rig()
    rig.send(2)
    tally = rig.look_on(2)
    tally.sample()
    assert not tally.sure
    assert rig.look_on(0).sure


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda rig: rig.driver.set_avail_idx(SIZE + 5),
        lambda rig: rig.driver.set_avail_idx(0xFFFF),
        lambda rig: rig.move_used(9),
        lambda rig: rig.move_used(0xFFF0),
        lambda rig: rig.element(SIZE),
        lambda rig: rig.element(0xFFFF_FFFF),
        lambda rig: rig.element(SIZE - 1 - 9),
        lambda rig: (rig.element(rig.out[0]), rig.element(rig.out[0])),
        lambda rig: (rig.driver.make_available(rig.out[1]), rig.driver.publish()),
        lambda rig: (rig.driver.make_available(rig.out[1]), rig.driver.publish(), rig.element(SIZE - 1 - 9)),
        lambda rig: (rig.driver.make_available(SIZE), rig.driver.publish()),
        lambda rig: (rig.driver.make_available(0xFFFF), rig.driver.publish()),
    ],
    ids=[
        "available jump", "available backwards", "used jump", "used backwards", "no head is used",
        "highest head is used", "idle head is used", "used twice", "available twice", "one of each",
        "no head is available", "highest head is available",
    ],
)  # fmt: skip
def test_nonsense_of_either_side_makes_it_unsure_and_nothing_else(nonsense: object) -> None:
    rig = Rig()
    rig.send(4)
    rig.tally.sample()
    nonsense(rig)  # type: ignore[operator]
    rig.tally.sample()
    assert not rig.tally.sure
    assert rig.tally.lost == 1


def test_notes_of_it_are_those_of_a_process_that_was_there() -> None:
    rig = Rig(0xFFFE)
    rig.send(6)
    rig.give_back(4, 0, 1)
    rig.tally.sample()
    left = take_over(rig.tally.notes(), rig.memory, rig.layout, RingPosition(0))
    assert (left.again, left.position.base) == (rig.out, 1)


def test_ring_outside_ram_is_refused() -> None:
    memory = MemoryMap([(0, mmap.mmap(-1, RAM))])
    for avail, used in ((RAM - 8, 0x1000), (0x1000, RAM - 8), (0x1001, 0x2000), (1 << 40, 0x1000)):
        with pytest.raises(GuestError):
            RingTally(memory, size=SIZE, avail=avail, used=used)
    with pytest.raises(GuestError, match="17 entries"):
        RingTally(memory, size=17, avail=0, used=0x1000)
    memory.close()


def test_memory_stays_until_it_is_closed() -> None:
    rig = Rig()
    with pytest.raises(BufferError):
        rig.memory.close()
    rig.tally.close()
    rig.tally.close()
    rig.memory.close()
    with pytest.raises(ValueError, match="closed"):
        rig.tally.sample()


@pytest.mark.parametrize("seed", range(12))
def test_what_it_is_sure_of_is_true_in_any_traffic(seed: int) -> None:
    """Batches, answers in any order, looks now and then: it may be unsure, not wrong, and is sure where it can be."""
    rng = random.Random(seed)
    rig = Rig(start=rng.choice([0, 65500]))
    often = rng.choice([0.9, 0.5, 0.15])
    sure = looks = empty = 0
    for _ in range(3000):
        free = rig.driver.free_descriptors
        rig.send(rng.randint(0, min(free, SIZE // 4)), show=False)
        if rng.random() < often:  # some entries are there and not shown
            rig.tally.sample()
            looks += 1
            sure += rig.tally.sure
            if rig.tally.sure:
                assert rig.tally.in_flight() == rig.out
        added = (rig.driver.next_avail - rig.driver.published_avail) & 0xFFFF
        first = rig.driver.published_avail
        rig.out += [
            int.from_bytes(rig.memory.read(rig.layout.avail_entry_at(first + i), 2), "little") for i in range(added)
        ]
        rig.driver.publish()
        for _ in range(rng.randint(0, len(rig.out))):
            rig.give_back(rng.randrange(len(rig.out)))
        if not rig.out:
            rig.tally.sample()
            assert rig.tally.sure
            empty += 1
    assert empty > 10
    assert sure > looks / (2 if often == 0.9 else 10)
