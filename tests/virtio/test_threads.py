"""The same with real loop threads: requests, resets, mask changes and failures at once, and nothing waits for ever."""

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from acrn_dm.base.errors import GuestError
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo, device_of, machine_with

pytestmark = pytest.mark.both_formats

LIMIT_S = 60


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """A deadlock ends the run with every thread's stack instead of hanging it."""
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


class Failing(Echo):
    """Fails on demand, from the I/O thread."""

    broken = False

    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        if self.broken:
            raise GuestError("on demand")


def threaded(machine: SimMachine) -> VirtioDriver:
    """The driver of a machine whose loops run by themselves."""
    machine.start()
    machine.main_loop.start()
    machine.io_loop("io").start()
    return machine.driver(SLOT)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S / 2
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0)


def begin(driver: VirtioDriver) -> None:
    driver.negotiate()
    driver.registers.map_vector(None, 0)
    for index in (0, 1):
        driver.setup_queue(index)
    driver.driver_ok()


def test_no_request_and_no_interrupt_is_lost() -> None:
    with machine_with() as machine:
        driver = threaded(machine)
        begin(driver)
        queue = driver.queue(0)
        for _ in range(300):
            before = driver.queue_interrupts(0)
            queue.send([b"ab"], [2])
            queue.kick()
            wait_until(lambda before=before: driver.queue_interrupts(0) > before)  # type: ignore[misc]
            assert [c.data for c in queue.completed()] == [b"ba"]


def test_resets_in_the_middle_of_traffic_do_not_deadlock_or_leak_work() -> None:
    with machine_with(Failing) as machine:
        driver = threaded(machine)
        for round_ in range(100):
            begin(driver)
            device_of(machine).broken = round_ % 3 == 0  # type: ignore[attr-defined]
            for _ in range(16):
                driver.queue(0).send([b"ab"], [2])
                driver.queue(0).kick()
            driver.reset()
            assert driver.status == 0
        device_of(machine).broken = False  # type: ignore[attr-defined]
        begin(driver)
        driver.queue(0).send([b"ab"], [2])
        driver.queue(0).kick()
        wait_until(driver.queue(0).completed)
        assert not driver.status & 64


def test_mask_changes_of_one_vcpu_during_traffic_of_another_lose_nothing() -> None:
    with machine_with() as machine:
        driver = threaded(machine)
        begin(driver)
        stop = threading.Event()

        def shake() -> None:
            while not stop.is_set():
                driver.function.mask(1)
                driver.function.mask(1, False)

        # The traffic uses no configuration accesses, so that the two do not share the address latch.
        notify = driver.function.bars[4].base + 0x3000
        shaker = threading.Thread(target=shake)
        place = driver.function.read(driver.function.capability(0x11).at + 4, 4)  # type: ignore[union-attr]
        driver.function._write_entry = (  # type: ignore[method-assign]
            lambda vector, offset, value: driver.function.bar_write(place & 7, 16 * vector + offset, 4, value)
        )
        shaker.start()
        try:
            for _ in range(200):
                before = driver.queue_interrupts(0)
                driver.queue(0).send([b"ab"], [2])
                machine.vm.mmio_write(notify, 2, 0)
                wait_until(lambda before=before: driver.queue_interrupts(0) > before)  # type: ignore[misc]
                driver.queue(0).completed()
        finally:
            stop.set()
            shaker.join()
