"""Rows 1 to 39 on every kind of queue, in both ring formats, with event index and without."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, PACKED, VERSION_1
from acrn_dm.testing.native._echo_plane import EchoPlane
from acrn_dm.virtio.queue import Queue
from tests.backends.hostile_rows import NOTHING, RESET, ROWS, SAME_AGAIN, SERVED, Row, Trial
from tests.backends.queue_kinds import KINDS, QueueKind
from tests.named_tests import all_tests
from tests.virtio.parts import SLOT, Echo, Holding
from tests.virtio.pause import pause, resume

FAST, SLOW = ("python", "plane", "noted", "watched", "relay"), ("relay_in_python",)
FORMATS = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
EVENTS = pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
ALL = [(row, packed) for packed in (False, True) for row in ROWS if packed in row.formats]


@pytest.fixture(scope="module", params=[*FAST, *(pytest.param(name, marks=pytest.mark.stress) for name in SLOW)])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueKind]:
    folder: Path = tmp_path_factory.mktemp("queue")
    with KINDS[request.param](folder) as made:
        yield made


def start(kind: QueueKind, *, packed: bool, event_idx: bool, indirect: bool = True) -> Trial:
    wanted = VERSION_1 | PACKED * packed | EVENT_IDX * event_idx | INDIRECT_DESC * indirect
    assert kind.driver.start(wanted) & PACKED == PACKED * packed
    return Trial(kind.driver.queue(0), kind.wait)


def expect_served(kind: QueueKind, trial: Trial) -> None:
    """All that was sent comes back, each chain once, and the driver is interrupted."""
    queue = trial.queue
    queue.kick(force=True)
    assert kind.wait(lambda: queue.ring.returned() >= len(trial.sent))
    kind.rest()
    came = queue.ring.used()
    assert sorted(came) == sorted((head, kind.written) for head in trial.sent)
    assert kind.wait(lambda: kind.driver.queue_interrupts(0) > trial.interrupts)
    queue.ring.enable_interrupts()
    assert not kind.driver.status & NEEDS_RESET


def expect_reset(kind: QueueKind, trial: Trial) -> None:
    """The driver is asked for a reset. What was in order before comes back, or is dropped with the rest."""
    trial.queue.kick(force=True)
    assert kind.wait(lambda: bool(kind.driver.status & NEEDS_RESET))
    came = [head for head, _ in trial.queue.ring.used() if head in trial.sent]
    assert came == trial.sent or kind.elsewhere


@EVENTS
@pytest.mark.parametrize(("row", "packed"), ALL, ids=[f"{row}-{'packed' if p else 'split'}" for row, p in ALL])
def test_row_is_kept_away_from_every_queue(kind: QueueKind, row: Row, packed: bool, event_idx: bool) -> None:
    trial = start(kind, packed=packed, event_idx=event_idx, indirect=row.indirect)
    row.do(trial)
    if row.outcome == SERVED:
        expect_served(kind, trial)
        return
    if row.outcome == RESET:
        expect_reset(kind, trial)
        trial = start(kind, packed=packed, event_idx=event_idx)
    else:
        assert row.outcome == NOTHING
        trial.queue.kick(force=True)
        kind.rest()
        assert trial.queue.ring.returned() == 0
        return
    trial.good(2)  # a reset is all that it costs
    expect_served(kind, trial)


# What is taken is kept


@contextlib.contextmanager
def in_python() -> Iterator[SimMachine]:
    with SimMachine() as machine:
        machine.add(Holding, slot=SLOT)
        yield machine


@contextlib.contextmanager
def in_c() -> Iterator[SimMachine]:
    with SimMachine() as machine:
        machine.add(Keeping, slot=SLOT)
        yield machine


class Keeping(Echo):
    """Its plane keeps what it takes."""

    def plane(self, features: int, queue: Queue) -> EchoPlane:
        plane = EchoPlane()
        plane.keeps = True
        return plane


@EVENTS
@FORMATS
@pytest.mark.parametrize("make", [in_python, in_c])
def test_row_06_row_29_same_head_is_taken_once_while_it_is_kept(
    make: Callable[[], contextlib.AbstractContextManager[SimMachine]], packed: bool, event_idx: bool
) -> None:
    """QEMU afd9096eb1, CVE-2026-45782: chains beyond what the queue has, and two that one head names."""
    with make() as machine:
        kind = QueueKind(machine, 0)
        trial = start(kind, packed=packed, event_idx=event_idx)
        SAME_AGAIN.do(trial)
        expect_reset(kind, trial)
        assert trial.queue.ring.returned() == 0


# Rows that are no single poke


@EVENTS
@FORMATS
def test_row_38_interrupts_go_by_what_was_negotiated(kind: QueueKind, packed: bool, event_idx: bool) -> None:
    """kvmtool 717a3ab: the feature's bit number was used as its mask. The driver asks in both ways at once."""
    trial = start(kind, packed=packed, event_idx=event_idx)
    seen, wanted = [], [0, 1, 0] if event_idx else [1, 1, 1]
    if event_idx:
        trial.queue.ring.interrupt_after(1, 3)
    else:
        trial.queue.ring.enable_interrupts()
        if not packed:
            trial.split_ring.set_used_event(1)
    for n in range(1, 4):
        before = kind.driver.queue_interrupts(0)
        trial.good()
        trial.queue.kick(force=True)
        due = before + wanted[n - 1]
        assert kind.wait(lambda n=n: trial.queue.ring.returned() == n)  # type: ignore[misc]
        assert kind.wait(lambda due=due: kind.driver.queue_interrupts(0) >= due)  # type: ignore[misc]
        kind.rest()
        seen.append(kind.driver.queue_interrupts(0) - before)
    assert seen == wanted


@EVENTS
@FORMATS
def test_row_35_position_survives_a_pause_anywhere_in_the_ring(kind: QueueKind, packed: bool, event_idx: bool) -> None:
    """QEMU c92f4fcafa: a mask that took a wrap counter for a part of the number."""
    trial = start(kind, packed=packed, event_idx=event_idx)
    before = len(kind.machine.failures)
    (function,) = (f for f in kind.machine.bus.functions if f.context.bdf.slot == SLOT)
    for _ in range(5):
        trial.good(trial.size // 4)  # of three descriptors: over the end of the ring, to another place in each lap
        expect_served(kind, trial)
        trial.sent.clear()
        pause(function)
        resume(function)
    assert len(kind.machine.failures) == before


@FORMATS
def test_row_31_queue_is_no_larger_than_the_device_has_it(kind: QueueKind, packed: bool) -> None:
    """QEMU d530f2dfbd2d: a queue size above what was allocated was accepted."""
    driver = kind.driver
    driver.negotiate(VERSION_1 | PACKED * packed)
    most = driver.registers.queue_size(0)
    for size in (most + 1, 2 * most, 0xFFFF):
        driver.registers.write("queue_size", size)
        assert driver.registers.queue_size(0) == most


@pytest.mark.stress
@EVENTS
@FORMATS
def test_row_36_more_than_65536_chains_stay_in_step(kind: QueueKind, packed: bool, event_idx: bool) -> None:
    """DPDK 38e6400387: an index was not masked by the size. Split indices and packed wrap counters go round."""
    if kind.elsewhere:
        pytest.skip("a back-end in another thread takes as long as the machine is busy")
    trial = start(kind, packed=packed, event_idx=event_idx)
    out, in_ = trial.request()
    ring, done = trial.queue.ring, 0
    while done <= 1 << 16:
        heads = [ring.add_chain(out, in_) for _ in range(trial.size // 2)]
        ring.publish()
        trial.queue.kick(force=True)
        assert kind.wait(lambda: ring.returned() == trial.size // 2)
        assert sorted(head for head, _ in ring.used()) == sorted(heads)
        done += len(heads)
    assert not kind.driver.status & NEEDS_RESET


# Rows that no driver can do to a single queue, or whose queues have tests of their own

ELSEWHERE = {
    7: "test_row_07_driver_that_adds_as_fast_as_it_is_served_can_not_keep_the_loop",
    11: "test_row_11_header_and_status_alone_are_answered",
    17: "test_row_17_buffer_across_two_host_mappings_is_two_segments",
    19: "test_row_19_copies_of_a_chain_never_use_a_crossing_buffer_as_one_pointer",
    23: "test_row_23_row_24_fields_changed_after_the_pop_have_no_effect",
    24: "test_row_23_row_24_fields_changed_after_the_pop_have_no_effect",
    25: "test_row_25_each_byte_of_a_request_is_read_by_the_cursor_once",
    26: "test_row_26_header_over_many_descriptors_is_read_whole",
    30: "test_row_30_chains_come_back_in_order_in_whatever_order_they_are_done",
    39: "test_row_39_no_wake_up_is_lost_between_publishing_and_asking",
}
HERE = {row.number for row in (*ROWS, SAME_AGAIN)} | {6, 29, 31, 35, 36, 38}


@pytest.mark.parametrize("row", range(1, 40))
def test_each_of_the_39_rows_is_seen_on_every_kind_of_queue_or_named(row: int) -> None:
    names = {test.name for test in all_tests()}
    assert row in HERE or ELSEWHERE[row] in names
