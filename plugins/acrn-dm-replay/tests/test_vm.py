"""The virtual machine as the device model sees it: accesses, kicks, interrupts, life cycle."""

import os
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from acrn_dm_replay.script import parse
from acrn_dm_replay.vm import POWER_OFF, ReplayVm

from acrn_dm import (
    GuestMemory,
    HostError,
    IntxLine,
    IoEventFd,
    IrqFd,
    MemoryRange,
    MsiMessage,
    Space,
    VmEvent,
)

OFF = ("out", 0x404, 2, POWER_OFF)
MESSAGE = MsiMessage(addr=0xFEE0_0000, data=0x41)


class Devices:
    """The other side: writes down what comes, answers reads with 0x1234, holds the processor where it is told to."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.hold = False

    def next(self) -> tuple[Any, ...]:
        """The next thing that comes."""
        return self.seen.get(timeout=20)

    def pio_read(self, port: int, size: int) -> int:
        self.seen.put(("in", port, size))
        return 0x1234

    def pio_write(self, port: int, size: int, value: int) -> None:
        self.seen.put(("out", port, size, value))

    def mmio_read(self, gpa: int, size: int) -> int:
        self.seen.put(("load", gpa, size))
        return 0x1234

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self.seen.put(("store", gpa, size, value))

    def vcpu_must_wait(self) -> bool:
        return self.hold

    def vm_event(self, event: VmEvent, detail: str) -> None:
        self.seen.put((event, detail))


class Scene:
    """A machine that plays *text*."""

    def __init__(self, text: str) -> None:
        self.devices = Devices()
        self.transcript: list[str] = []
        self.vm = ReplayVm("vm", parse(text, "s"), self.transcript.append)
        self.memory = GuestMemory.allocate((MemoryRange(gpa=0, size=1 << 20),))
        for region in self.memory.regions:
            self.vm.map_memory(region)

    def run(self) -> None:
        self.vm.run(self.devices)  # type: ignore[arg-type]  # of the contract, what this hypervisor uses

    def close(self) -> None:
        self.vm.close()
        self.memory.close()


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(request.param)
    yield made
    made.close()


def playing(text: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scene", [text], indirect=True, ids=[""])


@playing("out 0x80 1 7\nin 0x60 2\nstore 0x80000000 4 9\nload 0x80000000 8")
def test_accesses_come_in_order_and_then_the_machine_is_off(scene: Scene) -> None:
    scene.run()
    assert [scene.devices.next() for _ in range(5)] == [
        ("out", 0x80, 1, 7),
        ("in", 0x60, 2),
        ("store", 0x8000_0000, 4, 9),
        ("load", 0x8000_0000, 8),
        OFF,
    ]
    assert scene.transcript[1] == "in 0x60 2 0x1234"
    assert scene.transcript[3] == "load 0x80000000 8 0x1234"


@playing("store 0x1000 4 0x44332211\nput 0x1004 55\nload 0x1001 2 0x3322\nget 0x1000 5 1122334455")
def test_ram_is_reached_without_the_devices(scene: Scene) -> None:
    scene.run()
    assert scene.devices.next() == OFF
    assert scene.memory.read(0x1000, 5) == b"\x11\x22\x33\x44\x55"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("in 0x60 2 0x1235", "s:1: in 0x60 2 0x1235: it is 0x1234"),
        ("in 0x60 2 0x0035/0x00ff", "s:1: in 0x60 2 0x0035/0x00ff: it is 0x1234"),
        ("get 0 1 01", "s:1: get 0 1 01: it is 00"),
        ("put 0xfffff 0000", "s:1: put 0xfffff 0000: no RAM there"),
        ("restart\nmsi 1 0", "s:2: msi 1 0: nothing came in 0 s"),
    ],
)
def test_what_is_not_as_the_script_says_ends_the_machine_with_the_line(text: str, says: str) -> None:
    scene = Scene(text)
    scene.run()
    if text.startswith("restart"):
        scene.vm.reset()
        scene.run()
    events = [scene.devices.next()]
    while events[-1][0] is not VmEvent.INTERNAL_ERROR:
        events.append(scene.devices.next())
    assert events[-1] == (VmEvent.INTERNAL_ERROR, says)
    scene.close()


@playing("in 0x60 2 0x0034/0x00ff")
def test_bits_outside_the_mask_do_not_count(scene: Scene) -> None:
    scene.run()
    assert [scene.devices.next(), scene.devices.next()] == [("in", 0x60, 2), OFF]


@playing("out 0x2010 2 1\nout 0x2010 2 0\nout 0x2010 4 0")
def test_kick_is_taken_by_its_eventfd_and_other_writes_are_not(scene: Scene) -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    kick = IoEventFd(fd=fd, space=Space.PIO, addr=0x2010, len=2, datamatch=0)
    scene.vm.ioeventfd(kick, True)
    scene.run()
    assert [scene.devices.next() for _ in range(3)] == [("out", 0x2010, 2, 1), ("out", 0x2010, 4, 0), OFF]
    assert os.eventfd_read(fd) == 1
    os.close(fd)


@playing("msi 0x41\nout 0x80 1 1\nline 16 1\nout 0x80 1 2\nline 16 0")
def test_interrupts_by_calls_are_waited_for(scene: Scene) -> None:
    scene.run()
    scene.vm.inject_msi(MsiMessage(addr=0xFEE0_0000, data=0x42))
    scene.vm.pause()  # so it has looked
    assert scene.devices.seen.empty()
    scene.vm.resume()
    scene.vm.inject_msi(MESSAGE)
    assert scene.devices.next() == ("out", 0x80, 1, 1)
    scene.vm.set_irq_line(16, True)
    assert scene.devices.next() == ("out", 0x80, 1, 2)
    scene.vm.set_irq_line(16, False)
    assert scene.devices.next() == OFF


@playing("msi 0x41\nout 0x80 1 1\nmsi 0x41 0")
def test_interrupt_by_an_eventfd_counts_once(scene: Scene) -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    scene.vm.irqfd(IrqFd(fd=fd, target=MESSAGE), True)
    scene.run()
    os.eventfd_write(fd, 3)
    assert scene.devices.next() == ("out", 0x80, 1, 1)
    assert scene.devices.next() == (VmEvent.INTERNAL_ERROR, "s:3: msi 0x41 0: nothing came in 0 s")
    os.close(fd)


@playing("msi 0x41")
def test_signal_on_an_eventfd_when_it_is_unregistered_is_kept(scene: Scene) -> None:
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    call = IrqFd(fd=fd, target=MESSAGE)
    scene.vm.irqfd(call, True)
    scene.vm.irqfd(call, False)
    scene.run()
    assert scene.devices.next() == OFF
    os.close(fd)


@playing("msi 0x41\nout 0x80 1 1")
def test_pause_waits_for_the_step_and_resume_goes_on_there(scene: Scene) -> None:
    scene.run()
    scene.vm.pause()
    scene.vm.inject_msi(MESSAGE)
    assert scene.devices.seen.empty()
    scene.vm.resume()
    assert [scene.devices.next(), scene.devices.next()] == [("out", 0x80, 1, 1), OFF]


@playing("out 0xcf9 1 0xe\nrestart\nout 0x80 1 1")
def test_restart_waits_for_the_machine(scene: Scene) -> None:
    scene.run()
    assert scene.devices.next() == ("out", 0xCF9, 1, 0xE)
    scene.vm.pause()
    scene.vm.resume()
    assert scene.devices.seen.empty()
    scene.vm.reset()
    scene.run()
    assert [scene.devices.next(), scene.devices.next()] == [("out", 0x80, 1, 1), OFF]


@playing("out 0xcf9 1 6\nout 0x80 1 1")
def test_processor_that_must_wait_does_nothing_until_it_is_started_again(scene: Scene) -> None:
    scene.devices.hold = True
    scene.run()
    assert scene.devices.next() == ("out", 0xCF9, 1, 6)
    scene.vm.pause()
    assert scene.devices.seen.empty()
    scene.devices.hold = False
    scene.vm.reset()
    scene.run()
    assert [scene.devices.next(), scene.devices.next()] == [("out", 0x80, 1, 1), OFF]


@playing("restart")
def test_bindings_are_refused_twice_unknown_or_to_a_line(scene: Scene) -> None:
    kick = IoEventFd(fd=0, space=Space.PIO, addr=0x2010, len=2, datamatch=None)
    call = IrqFd(fd=0, target=MESSAGE)
    for bind, binding in ((scene.vm.ioeventfd, kick), (scene.vm.irqfd, call)):
        bind(binding, True)  # type: ignore[operator]
        with pytest.raises(HostError):
            bind(binding, True)  # type: ignore[operator]
        scene.vm.reset()
        with pytest.raises(HostError):
            bind(binding, False)  # type: ignore[operator]
    with pytest.raises(HostError):
        scene.vm.irqfd(IrqFd(fd=0, target=IntxLine(gsi=16)), True)


@playing("restart")
def test_close_is_idempotent_and_what_comes_late_vanishes(scene: Scene) -> None:
    scene.run()
    scene.vm.close()
    scene.vm.close()
    scene.vm.inject_msi(MESSAGE)
    scene.vm.set_irq_line(16, True)
