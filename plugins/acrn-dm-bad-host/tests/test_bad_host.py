"""The backends under a driver, before a device that reverses bytes."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping

import acrn_dm_bad_host
import attrs
import pytest

from acrn_dm import ConfigError, DeviceContext, DeviceType, IoLoop, Queue, Timer, VirtioDevice, option
from acrn_dm.testing import DriverQueue, SimMachine, VirtioDriver

NEEDS_RESET = 64
DELAY_MS = 50


@attrs.frozen(kw_only=True)
class ReverserOptions:
    limit: int = option(default=64, help="bytes taken from one request")


class Reverser(VirtioDevice):
    device_id = 42

    def __init__(self, options: ReverserOptions, context: DeviceContext) -> None:
        super().__init__(context)
        self.options = options
        self.rounds = 0

    def handle_queue(self, queue: Queue) -> None:
        self.rounds += 1
        for chain in queue.pop_batch():
            chain.write(chain.read(self.options.limit)[::-1])
            queue.push(chain)


REVERSER = DeviceType(name="reverser", summary="reverses bytes", config=ReverserOptions, create=Reverser)


def make_machine(**plugin_options: object) -> SimMachine:
    options = {name.replace("_", "-"): value for name, value in plugin_options.items()}
    return SimMachine(plugins=[acrn_dm_bad_host], plugin_options=options)


def add(machine: SimMachine, backend: str) -> Reverser:
    device = machine.add(REVERSER, f"limit=8,backend={backend}", slot=3).device  # type: ignore[attr-defined]
    assert isinstance(device, Reverser)
    return device


class Clock:
    """The time of the loop ``io`` in the test's hand: what is to be done later there waits for ``strike``."""

    def __init__(self) -> None:
        self.waiting: list[Timer] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        self.waiting.append(Timer(seconds, callback))
        return self.waiting[-1]

    def strike(self) -> list[float]:
        """Do what waits, unless it was cancelled; returns in how many seconds each was to be done."""
        waiting, self.waiting = [timer for timer in self.waiting if timer.callback is not None], []
        for timer in waiting:
            assert timer.callback is not None
            timer.callback()
        return [timer.when for timer in waiting]


Slow = tuple[SimMachine, Reverser, VirtioDriver, Clock]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """A started device on a slow host, and the clock."""
    clock, call_later = Clock(), IoLoop.call_later

    def by_the_clock(loop: IoLoop, seconds: float, callback: Callable[[], object]) -> Timer:
        return (clock.call_later if loop.name == "io" else functools.partial(call_later, loop))(seconds, callback)

    monkeypatch.setattr(IoLoop, "call_later", by_the_clock)
    with make_machine(slow_host_ms=DELAY_MS) as machine:
        device = add(machine, "slow-host")
        driver = machine.driver(3)
        driver.start()
        yield machine, device, driver, clock


def answers(machine: SimMachine, queue: DriverQueue) -> list[bytes]:
    """What the device has returned by now."""
    machine.settle()
    return [done.data[: done.written] for done in queue.completed()]


def test_answer_is_late(slow: Slow) -> None:
    machine, _, driver, clock = slow
    queue = driver.queue(0)
    queue.send([b"stressed"], [8])
    queue.kick()
    assert answers(machine, queue) == []
    assert clock.strike() == [DELAY_MS / 1000]
    assert answers(machine, queue) == [b"desserts"]
    assert driver.queue_interrupts(0) == 1


def test_kicks_that_come_meanwhile_wait_for_the_same_moment(slow: Slow) -> None:
    machine, device, driver, clock = slow
    queue, before = driver.queue(0), device.rounds
    for text in (b"ab", b"cd", b"ef"):
        queue.send([text], [8])
        queue.kick(force=True)
        assert answers(machine, queue) == []
    assert clock.strike() == [DELAY_MS / 1000]
    assert answers(machine, queue) == [b"ba", b"dc", b"fe"]
    assert device.rounds == before + 1


def test_reset_forgets_the_kick_that_waits_and_the_next_driver_is_served(slow: Slow) -> None:
    machine, _, driver, clock = slow
    open_before = sorted(os.listdir("/proc/self/fd"))
    driver.queue(0).send([b"ab"], [8])
    driver.queue(0).kick()
    machine.settle()
    driver.reset()
    assert clock.strike() == []  # nothing is due any more
    driver.start()
    assert sorted(os.listdir("/proc/self/fd")) == open_before
    driver.queue(0).send([b"cd"], [8])
    driver.queue(0).kick()
    machine.settle()
    clock.strike()
    assert answers(machine, driver.queue(0)) == [b"dc"]


def test_host_that_is_not_slow_loses_nothing() -> None:
    with make_machine(slow_host_ms=0) as machine:
        add(machine, "slow-host")
        driver = machine.driver(3)
        driver.start()
        for number in range(1000):
            text = b"%08d" % number
            assert driver.queue(0).transfer([text], [8]).data == text[::-1]


def test_host_fails_with_the_nth_kick_and_works_again_after_a_reset() -> None:
    with make_machine(failing_host_after=3) as machine:
        add(machine, "failing-host")
        driver = machine.driver(3)
        for failures in (1, 2):
            driver.start()
            for _ in range(2):
                assert driver.queue(0).transfer([b"ab"], [8]).data[:2] == b"ba"
            assert not driver.status & NEEDS_RESET
            driver.queue(0).send([b"ab"], [8])
            for _ in range(3):
                driver.queue(0).kick(force=True)
                machine.settle()
            assert driver.status & NEEDS_RESET
            assert driver.queue(0).completed() == []
            assert [str(error) for _, error in machine.failures] == ["failing-host: kick 3"] * failures


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("slow-host", {"slow_host_ms": "soon"}),
        ("slow-host", {"slow_host_ms": "-1"}),
        ("slow-host", {"slow_host_ms": "3600001"}),
        ("slow-host", {"slow_host_ms": "9" * 400}),
        ("failing-host", {"failing_host_after": "0"}),
        ("failing-host", {"failing_host_after": str((1 << 62) + 1)}),
    ],
)
def test_option_that_is_no_number_within_its_limits_is_refused(backend: str, options: Mapping[str, object]) -> None:
    with (
        make_machine(**options) as machine,
        pytest.raises(ConfigError, match=r"expected a whole number from [01] to \d+"),
    ):
        add(machine, backend)


def test_options_have_defaults() -> None:
    with make_machine() as machine:
        add(machine, "slow-host")


def test_both_are_offered_for_every_device() -> None:
    offered = acrn_dm_bad_host.acrn_dm_backend_types()
    assert [(kind.name, set(kind.kinds)) for kind in offered] == [("slow-host", {"*"}), ("failing-host", {"*"})]
