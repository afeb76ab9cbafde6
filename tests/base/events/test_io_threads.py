"""acrn_dm.base.events.io_threads: a device's own thread, its name, its CPUs, and polling before it sleeps."""

import os
import threading
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.io_loops import IoLoops
from acrn_dm.base.events.io_threads import DeviceLoops, IoThreads, io_threads, poll_us
from acrn_dm.contract.types import DeviceType
from acrn_dm.testing import SimMachine
from tests.virtio.parts import SLOT, Echo


@attrs.frozen(kw_only=True)
class NoOptions:
    pass


ECHO = DeviceType(name="echo", summary="", config=NoOptions, create=lambda options, context: Echo(context))


def loops_of(made: IoLoops, text: str, poll_ns: int = 0) -> DeviceLoops:
    return DeviceLoops(device="d", short="net3:0", threads=io_threads(text), poll_ns=poll_ns, make=made.get)


def test_thread_of_its_own_has_its_name_and_runs_on_its_cpus() -> None:
    made = IoLoops()
    seen: list[tuple[str, set[int]]] = []
    done = threading.Event()
    try:
        loop = loops_of(made, "1@0").get("io")
        loop.call_soon(
            lambda: seen.append((Path("/proc/thread-self/comm").read_text().strip(), os.sched_getaffinity(0)))
        )
        loop.call_soon(done.set)
        assert done.wait(10)
    finally:
        made.close()
    assert seen == [("iothr-0-net3:0", {0})]
    assert list(made.by_name) == []


def test_cpu_that_is_not_there_is_told_and_the_thread_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    made = IoLoops()
    done = threading.Event()
    try:
        loops_of(made, "1@4000").get("io").call_soon(done.set)
        assert done.wait(10)
    finally:
        made.close()
    assert "d: loop iothr-0-net3:0 can't run on CPUs 4000" in caplog.text


def test_shared_loop_polls_as_long_as_the_keenest_of_its_devices_wants() -> None:
    made = IoLoops(threads=False)
    for ns in (5000, 9000, 0):
        shared = DeviceLoops(device="d", short="", threads=IoThreads(), poll_ns=ns, make=made.get).get("io")
    assert shared.poll.poll_limit == 9000
    made.close()


@pytest.mark.parametrize("value", ["0", "41", "x", "1@0/1", "1@x", "9" * 21])
def test_threads_that_can_not_be_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^iothread"):
        io_threads(value)


@pytest.mark.parametrize("value", ["10001", "-1", "x", "9" * 5000])
def test_polling_without_a_bound_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^poll_us"):
        poll_us(value)


@pytest.mark.parametrize("text", ["iothread", "iothread=1", "iothread=1@0", {"iothread": True}, {"iothread": 1}])
def test_any_virtio_device_may_have_a_thread_of_its_own(text: "str | dict[str, object]") -> None:
    with SimMachine() as machine:
        machine.add(ECHO, text, slot=SLOT)
        machine.add(ECHO, slot=SLOT + 1)
        drivers = [machine.driver(slot) for slot in (SLOT, SLOT + 1)]
        for driver in drivers:
            driver.start()
            assert driver.queue(0).transfer([b"abc"], [3]).data == b"cba"
        assert set(machine.io_loops) == {f"iothr-0-echo{SLOT}:0", "io"}


def test_queues_of_a_device_that_says_so_are_on_several_threads_each_on_its_cpus() -> None:
    class Spread(Echo):
        sizes = (16, 16, 16, 16)

        def thread(self, queue: int) -> int:
            return queue

    spread = attrs.evolve(ECHO, create=lambda options, context: Spread(context))
    with SimMachine() as machine:
        machine.add(spread, "iothread=3@*/0", slot=SLOT)
        machine.add(spread, slot=SLOT + 1)
        for slot in (SLOT, SLOT + 1):
            machine.driver(slot).start()
        names = [queue.loop.name for queue in machine.device(SLOT, Spread).queues]
        assert names == [f"iothr-{n}-echo{SLOT}:0" for n in (0, 1, 2, 0)]
        assert {queue.loop.name for queue in machine.device(SLOT + 1, Spread).queues} == {"io"}


def test_more_threads_than_a_device_is_written_for_are_refused() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="its queues are served by one thread"):
        machine.add(ECHO, "iothread=2", slot=SLOT)


def test_poll_us_reaches_the_loop() -> None:
    with SimMachine() as machine:
        machine.add(ECHO, "iothread,poll_us=50", slot=SLOT)
        machine.driver(SLOT).start()
        assert machine.io_loop(f"iothr-0-echo{SLOT}:0").poll.poll_limit == 50_000
