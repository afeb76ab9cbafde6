"""Faults by script: what a device meets when the host fails, and that nobody else does."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.contract.resources import Resources
from acrn_dm.testing import SimMachine, VirtioDriver, VirtualClock
from acrn_dm.virtio.queue import Queue
from tests.patience import comes_true
from tests.virtio.parts import SLOT, Echo

TEXT = b"what the file says"


class Reads(Echo):
    """Answers each request with what its file says, or with the errno."""

    path: Path
    fd = -1

    def realize(self, resources: Resources) -> None:
        self.fd = os.open(self.path, os.O_RDWR)

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            try:
                chain.write(os.pread(self.fd, 100, 0))
            except OSError as e:
                chain.write(f"errno {e.errno}".encode())
            queue.push(chain)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SimMachine]:
    (tmp_path / "text").write_bytes(TEXT)
    Reads.path = tmp_path / "text"
    with SimMachine(clock=VirtualClock()) as it:
        it.add(Reads, slot=SLOT)
        yield it


def answers(machine: SimMachine, count: int) -> list[bytes]:
    driver = machine.driver(SLOT)
    driver.start()
    done = [driver.queue(0).transfer([], [100]) for _ in range(count)]
    return [c.data[: c.written] for c in done]


def test_nth_call_fails_with_its_errno_and_the_others_do_not(machine: SimMachine) -> None:
    machine.faults.fail("pread", nth=2, times=2, errno=errno.ENOSPC)
    assert answers(machine, 4) == [TEXT, b"errno 28", b"errno 28", TEXT]


def test_call_is_cut_short(machine: SimMachine) -> None:
    machine.faults.short("pread", 4)
    assert answers(machine, 2) == [TEXT[:4], TEXT]


def test_fault_of_another_path_does_not_happen(machine: SimMachine) -> None:
    other = machine.faults.fail("pread", path="*/other")
    own = machine.faults.fail("pread", path="*/te?t", nth=2)
    assert answers(machine, 2) == [TEXT, b"errno 5"]
    assert (machine.faults.unused, own.seen) == ([other], 2)


def test_what_the_test_itself_calls_goes_through(machine: SimMachine) -> None:
    machine.faults.fail("pread")
    with Reads.path.open("rb") as file:
        assert os.pread(file.fileno(), 4, 0) == TEXT[:4]
    assert answers(machine, 1) == [b"errno 5"]


def test_everything_is_put_back_at_the_end(machine: SimMachine) -> None:
    before, send = os.pread, socket.socket.send
    machine.faults.fail("pread")
    machine.faults.fail("socket.send")
    assert os.pread is not before
    machine.close()
    assert (os.pread, socket.socket.send) == (before, send)


def test_call_is_late_on_the_machines_clock(machine: SimMachine) -> None:
    machine.faults.delay("pread", 2.5)
    assert answers(machine, 1) == [TEXT]
    assert machine.clock.monotonic() == 2.5


def test_what_happened_is_logged_with_its_time(machine: SimMachine) -> None:
    machine.advance(1.5)
    machine.faults.fail("pread", nth=2)
    answers(machine, 3)
    assert machine.faults.log == ["1.500000 s: fail pread nth=2 errno=EIO"]


class Sends(Echo):
    def realize(self, resources: Resources) -> None:
        self.near, self.far = socket.socketpair()

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            data = chain.read()
            chain.write(bytes([self.near.send(data)]))
            queue.push(chain)

    def close(self) -> None:
        self.near.close()
        self.far.close()


def test_method_of_a_socket_is_cut_short() -> None:
    with SimMachine() as machine:
        machine.add(Sends, slot=SLOT)
        machine.faults.short("socket.send", 3)
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"hello"], [1]).data == b"\x03"
        assert machine.device(SLOT, Sends).far.recv(10) == b"hel"


# A disk: its requests are in threads of their own.

OUT, FLUSH = 1, 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[VirtioDriver]:
    (tmp_path / "disk").write_bytes(bytes(1 << 16))
    with SimMachine(clock=VirtualClock()) as machine:
        machine.add("virtio-blk", f"{tmp_path}/disk,werror=report", slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start()
        yield driver


def request(kind: int, sector: int = 0) -> bytes:
    return kind.to_bytes(4, "little") + bytes(4) + sector.to_bytes(8, "little")


def test_lock_of_an_image_that_fails_is_the_start_that_fails(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    with SimMachine() as machine:
        machine.add("virtio-blk", f"{tmp_path}/disk", slot=SLOT)
        machine.faults.script("fail fcntl errno=EIO path=*/disk")
        with pytest.raises(HostError, match=r"disk"):
            machine.start()


def test_write_of_a_disk_fails_for_its_driver(disk: VirtioDriver) -> None:
    disk.machine.faults.fail("pwritev", path="*/disk")  # type: ignore[attr-defined]
    statuses = [disk.queue(0).transfer([request(OUT), bytes(512)], [1]).data for _ in range(2)]
    assert statuses == [b"\1", b"\0"]


def test_flush_of_a_disk_is_late_and_the_test_does_not_wait(disk: VirtioDriver) -> None:
    machine = disk.machine
    assert isinstance(machine, SimMachine)
    machine.faults.delay("fdatasync", 60.0)
    disk.queue(0).send([request(FLUSH)], [1])
    disk.queue(0).kick()
    machine.advance(59.0)
    assert disk.queue(0).completed() == []
    machine.advance(1.0)
    assert [c.data for c in disk.queue(0).completed()] == [b"\0"]


def test_requests_of_a_disk_are_reordered(disk: VirtioDriver) -> None:
    machine = faults(disk)
    machine.faults.reorder("pwritev")
    disk.queue(0).send([request(OUT, 0), bytes(512)], [1])
    disk.queue(0).kick()
    for loop in machine.io_loops.values():
        loop.step()
    assert comes_true(lambda: bool(machine.faults.log))  # a thread of the disk's has made the call, and waits
    disk.queue(0).send([request(OUT, 64), bytes(512)], [1])
    disk.queue(0).kick()
    machine.settle()
    assert [c.token for c in disk.queue(0).completed()] == [1, 0]


# Interrupts and the hypervisor


@pytest.fixture
def echo() -> Iterator[VirtioDriver]:
    with SimMachine(clock=VirtualClock()) as machine:
        machine.add(Echo, slot=SLOT)
        driver = machine.driver(SLOT)
        driver.start()
        yield driver


def faults(driver: VirtioDriver) -> SimMachine:
    assert isinstance(driver.machine, SimMachine)
    return driver.machine


def test_interrupt_is_lost_and_the_completion_is_there(echo: VirtioDriver) -> None:
    faults(echo).faults.lose(of="3.0 vector 1", nth=2)
    for expected in (1, 1, 2):
        echo.queue(0).transfer([b"a"], [1])
        assert echo.queue_interrupts(0) == expected


def test_interrupt_is_late(echo: VirtioDriver) -> None:
    faults(echo).faults.delay("interrupt", 0.25)
    echo.queue(0).transfer([b"a"], [1])
    assert echo.queue_interrupts(0) == 0
    faults(echo).advance(0.25)
    assert echo.queue_interrupts(0) == 1


def test_interrupts_are_reordered(echo: VirtioDriver) -> None:
    machine = faults(echo)
    machine.faults.reorder("interrupt")
    with machine.record() as recorder:
        echo.queue(0).transfer([b"a"], [1])
        echo.queue(1).transfer([b"a"], [1])
    assert recorder.lines("interrupt") == ["interrupt 3.0 vector 2", "interrupt 3.0 vector 1"]


def test_call_of_the_hypervisor_fails_and_the_device_goes_on_without() -> None:
    with SimMachine() as machine:
        machine.add(Echo, slot=SLOT)
        machine.faults.script("fail vm.irqfd times=2 errno=ENOSPC")
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"
        assert (driver.queue_interrupts(0), machine.faults.unused) == (1, [])


def test_backend_that_fails_to_start_costs_a_reset_and_the_next_start_works() -> None:
    with SimMachine() as machine:
        machine.add(Echo, slot=SLOT)
        machine.faults.fail("backend.start", errno=errno.EMFILE)
        driver = machine.driver(SLOT)
        driver.start()
        with pytest.raises(HostError, match=r"backend\.start"):
            driver.queue(0).transfer([b"a"], [1])
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


@pytest.mark.parametrize("call", ["vm.irqfd", "backend.start"])
def test_call_to_hypervisor_or_backend_is_late_on_the_machines_clock(call: str) -> None:
    with SimMachine(clock=VirtualClock()) as machine:
        machine.add(Echo, slot=SLOT)
        machine.faults.delay(call, 1.5)
        driver = machine.driver(SLOT)
        assert machine.clock.monotonic() == 0
        driver.start()
        assert machine.clock.monotonic() == 1.5
        assert driver.queue(0).transfer([b"ab"], [2]).written == 2
