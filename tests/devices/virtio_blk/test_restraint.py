"""Limits of a disk as its driver sees them, on each way through it.

Where Python serves the time is a clock's that stands still. The planes wait by this host's clock; there a limit is
so low that nothing but what the test does can let a request begin.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.testing import VirtualClock
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    GET_ID,
    IN,
    OK,
    OUT,
    WRITE_ZEROES,
    Disk,
    disk,
    header,
    image,
    segment,
)
from tests.devices.virtio_blk.native.service_rig import engines
from tests.devices.virtio_blk.test_pause import function
from tests.patience import comes_true
from tests.virtio.pause import pause, resume

READ = ([header(IN, 8)], [512, 1])
WRITE = ([header(OUT, 8), bytes(512)], [1])


def send(d: Disk, *requests: tuple[list[bytes], list[int]], queue: int = 0) -> list[int]:
    """Make them available at once; returns their tokens."""
    tokens = [d.driver.queue(queue).send(out, room) for out, room in requests]
    d.driver.queue(queue).kick()
    d.machine.settle()
    return tokens


def done(d: Disk, queue: int = 0) -> list[int]:
    """Tokens of what was answered since, all of which must have succeeded."""
    answers = d.driver.queue(queue).completed()
    assert {answer.data[-1] for answer in answers} <= {OK}
    return [answer.token for answer in answers]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["python", *engines()])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """The first byte passes; what comes then waits for ever."""
    aio = "" if request.param == "python" else f",aio={request.param}"
    with disk(f"mq=2,{image(tmp_path)},writeback,discard,bps=1{aio}", vcpus=2) as d:
        yield d


def test_requests_begin_at_the_rate_in_order(tmp_path: Path, clock: VirtualClock) -> None:
    with disk(f"{image(tmp_path)},iops=10", clock=clock) as d:
        tokens = send(d, *[READ] * 6)
        assert done(d) == tokens[:2]
        began = []
        for _ in range(40):
            clock.advance(0.01)
            began += [(token, round(clock.monotonic(), 2)) for token in done(d)]
        assert began == [(token, pytest.approx(0.1 * n, abs=0.011)) for n, token in enumerate(tokens[2:], 1)]


def test_queues_have_equal_parts_of_the_limits(tmp_path: Path, clock: VirtualClock) -> None:
    with disk(f"mq=2,{image(tmp_path)},iops=10", vcpus=2, clock=clock) as d:
        send(d, *[READ] * 40)
        send(d, *[READ] * 10, queue=1)
        clock.advance(1.0)
        assert (len(done(d)), len(done(d, 1))) == (pytest.approx(7, abs=1), pytest.approx(5, abs=1))


def test_one_direction_does_not_wait_for_the_other(tmp_path: Path, clock: VirtualClock) -> None:
    with disk(f"{image(tmp_path)},iops_wr=1", clock=clock) as d:
        tokens = send(d, WRITE, WRITE, READ, READ)
        assert done(d) == [tokens[2], tokens[3], tokens[0]]
        clock.advance(0.95)
        assert done(d) == [tokens[1]]


def test_what_moves_no_data_does_not_wait_for_bytes(slow: Disk) -> None:
    tokens = send(slow, WRITE, WRITE, ([header(GET_ID)], [20, 1]))
    tokens += send(slow, ([header(DISCARD), segment(0, 8)], [1]), ([header(FLUSH)], [1]))
    assert set(done(slow)) == {tokens[0], *tokens[2:]}


@pytest.mark.parametrize("kind", ["read", "write", "zeroes"])
def test_what_moves_data_waits_and_is_counted(slow: Disk, kind: str) -> None:
    asked = {"read": READ, "write": WRITE, "zeroes": ([header(WRITE_ZEROES), segment(0, 1)], [1])}[kind]
    tokens = send(slow, asked, asked, asked)
    assert done(slow) == tokens[:1]
    assert function(slow).queue_counts(0).throttled == 2


def test_limits_that_are_lifted_let_all_begin(slow: Disk) -> None:
    tokens = send(slow, READ, READ, WRITE, READ)
    assert done(slow) == tokens[:1]
    slow.machine.machine.devices.set_limits(function(slow).context.bdf, "")
    slow.machine.settle()
    assert sorted(done(slow)) == tokens[1:]
    assert slow.device.config.bps == 0


def test_limits_hold_for_queues_that_had_none(tmp_path: Path) -> None:
    """Also for planes, which had no gate."""
    for aio in ("", *(f",aio={engine}" for engine in engines())):
        with disk(f"{image(tmp_path)}{aio}") as d:
            d.device.set_limits("bps=1")
            tokens = send(d, READ, READ)
            assert done(d) == tokens[:1]


def test_limits_that_are_wrong_leave_those_that_hold(slow: Disk) -> None:
    with pytest.raises(ConfigError, match="iops_max needs iops"):
        slow.device.set_limits("iops_max=5")
    assert slow.device.config.bps == 1


def test_what_waits_for_this_hosts_clock_begins_by_itself(tmp_path: Path) -> None:
    """512 bytes over a tenth of the 5120 that a second has: the second read waits for some milliseconds."""
    for engine in engines():
        with disk(f"{image(tmp_path)},bps=9000,aio={engine}") as d:
            tokens = send(d, READ, READ, READ, READ)
            answered: list[int] = []

            def all_answered(d: Disk = d, answered: list[int] = answered) -> bool:
                d.machine.io_loops["io"].step(0.01)
                answered += done(d)
                return len(answered) == 4

            comes_true(all_answered)
            assert sorted(answered) == sorted(tokens)  # threads have no order
            assert function(d).queue_counts(0).throttled > 0


def test_reset_drops_what_waits_and_what_was_counted_for_it(slow: Disk) -> None:
    send(slow, READ, READ, READ)
    slow.driver.reset()
    assert not slow.device.busy
    slow.device.set_limits("bps=512")
    slow.driver.start()
    assert send(slow, READ) == done(slow)


def test_what_a_reset_drops_is_not_counted(tmp_path: Path) -> None:
    """Of two writes the second waits; without it the next request waits half as long."""
    for aio in ("", *(f",aio={engine}" for engine in engines())):
        with disk(f"{image(tmp_path)}{aio},bps_wr=1,bps_rd=1G") as d:
            send(d, WRITE, WRITE)
            throttle = d.device._restraint.throttle
            before = throttle.reserve(True, 1, 0)
            d.driver.reset()
            assert throttle.reserve(True, 1, 0) < before - 400 * 10**9


def test_queue_that_is_reset_drops_its_own(slow: Disk) -> None:
    (first,) = send(slow, READ)
    send(slow, READ)
    (kept,) = send(slow, READ, queue=1)
    assert done(slow) == [first]
    before = slow.queue
    slow.driver.reset_queue(0)
    slow.device.set_limits("")
    slow.machine.settle()
    assert (done(slow, 1), before.completed()) == ([kept], [])


def test_pause_waits_for_no_limit(slow: Disk) -> None:
    tokens = send(slow, READ, READ, WRITE)
    pause(function(slow))
    assert sorted(done(slow)) == tokens
    resume(function(slow))
    assert len(send(slow, READ)) == 1
    assert done(slow) == []
