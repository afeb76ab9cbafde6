"""Every interrupt counted while the guest flips its MSI-X entry as fast as it can: none lost, none twice, none stray.

One thread is the vCPU that masks, rewrites and unmasks the entry of a queue, in a tight loop and in every way drivers
do. A data plane that really runs beside it (an I/O loop, a played kernel's thread, another process) makes one call for
each request; the next request is made when the last one's interrupt has arrived. What arrives is looked at as it
arrives: it must be the message in force at that moment. The guest's view decides what that is: after a write that masks
has returned there is none until one that unmasks has begun.
"""

import faulthandler
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.base.irq import MsiMessage
from acrn_dm.devices import virtio_console
from acrn_dm.hypervisors.sim.irq import InterruptController
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import CONFIG_VECTOR, VERSION_1
from acrn_dm.testing.guest_pci import CAP_MSIX, MSI_ADDRESS, MSIX_ENABLE, MSIX_FUNCTION_MASK
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.kernel.kernel_rig import vhost_card
from tests.backends.user.user_rig import Daemon
from tests.virtio.parts import SLOT, machine_with

FLIPS = 10_000  # changes of what the vector sends, at least
CALLS = 500  # at least
LIMIT_S = 10.0  # for one interrupt
WHOLE_S = 120.0  # for all of them
MARK = 0x00AC_0000  # in the data of all messages that the flipping vCPU writes


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Threads change often; a deadlock ends the run with every thread's stack."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    sys.setswitchinterval(interval)


class Witness(InterruptController):
    """The guest's interrupt controller. *allowed* are the messages of the vector that may arrive now."""

    def __init__(self, pins: int) -> None:
        super().__init__(pins, tell=lambda event: None)
        self.allowed: frozenset[MsiMessage] = frozenset()
        self.arrived = 0
        self.stray: list[tuple[MsiMessage, frozenset[MsiMessage]]] = []

    def deliver(self, message: MsiMessage) -> None:
        if message.data & 0xFFFF_0000 == MARK:
            self.arrived += 1
            if message not in self.allowed:
                self.stray.append((message, self.allowed))
        super().deliver(message)


@attrs.define(eq=False)
class Hesitant:
    """Takes its time between being asked for a message and sending it."""

    vm: SimVm

    def inject_msi(self, message: MsiMessage) -> None:
        time.sleep(5e-5)
        self.vm.inject_msi(message)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        self.vm.set_irq_line(gsi, asserted)


@attrs.define(eq=False)
class Scene:
    """A queue under a data plane of its own. *request* makes it call once."""

    driver: VirtioDriver
    witness: Witness
    queue: int
    out: bytes
    in_: tuple[int, ...] = ()

    @property
    def function(self) -> VirtioPci:
        """The device."""
        (function,) = self.driver.machine.bus.functions
        assert isinstance(function, VirtioPci)
        return function

    @property
    def vector(self) -> int:
        """The one that is flipped."""
        return self.driver.default_vector(self.queue)

    def request(self) -> None:
        """No configuration access: that is the other vCPU's."""
        queue = self.driver.queue(self.queue)
        queue.completed()
        queue.send([self.out], self.in_)
        queue.kick(force=True)


class ConfigScene(Scene):
    """Configuration changes, which have no eventfd."""

    vector = CONFIG_VECTOR  # type: ignore[assignment]

    def request(self) -> None:
        self.function.config_interrupt()


class Flipper(threading.Thread):
    """The other vCPU. *flips* counts changes: masked, unmasked, another message."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        function = scene.driver.function
        cap = function.capability(CAP_MSIX)
        assert cap is not None
        place = function.read(cap.at + 4, 4)
        self._entry = (place & 7, (place & ~7) + 16 * scene.vector)
        self._control = cap.at + 2
        self._function, self._witness = function, scene.witness
        self._numbers = itertools.cycle(range(256))
        self._random = random.Random(7)
        self._message = self._new()
        self._halt = threading.Event()
        self.flips = 0
        self.error: BaseException | None = None
        self._mask()
        self._fill()
        self._unmask()

    def run(self) -> None:
        moves: list[Callable[[], None]] = [self._move, self._blink, self._rewrite, self._mask_all]
        try:
            while not self._halt.is_set():
                self._random.choice(moves)()
        except BaseException as e:
            self.error = e

    def finish(self) -> None:
        """Come to an end, with the vector unmasked."""
        self._halt.set()
        self.join(60)
        assert not self.is_alive()
        assert self.error is None

    # What drivers do

    def _move(self) -> None:
        """To another CPU, as Linux does it: mask, write, unmask."""
        self._mask()
        self._dwell()
        self._message = self._new()
        self._fill()
        self._unmask()

    def _blink(self) -> None:
        self._mask()
        self._dwell()
        self._unmask()

    def _rewrite(self) -> None:
        """Other data without masking; either may arrive while the write is under way."""
        new = attrs.evolve(self._message, data=self._new().data)
        self._witness.allowed = frozenset((self._message, new))
        self._write(8, new.data)
        self._witness.allowed = frozenset((new,))
        self._message = new
        self.flips += 1

    def _mask_all(self) -> None:
        """The whole function, by message control."""
        self._function.write(self._control, 2, MSIX_ENABLE | MSIX_FUNCTION_MASK)
        self._witness.allowed = frozenset()
        self._dwell()
        self._witness.allowed = frozenset((self._message,))
        self._function.write(self._control, 2, MSIX_ENABLE)
        self.flips += 2

    # How

    def _new(self) -> MsiMessage:
        number = next(self._numbers)
        return MsiMessage(addr=MSI_ADDRESS | number << 12, data=MARK | number)

    def _fill(self) -> None:
        self._write(0, self._message.addr)
        self._write(8, self._message.data)

    def _mask(self) -> None:
        self._write(12, 1)
        self._witness.allowed = frozenset()
        self.flips += 1

    def _unmask(self) -> None:
        self._witness.allowed = frozenset((self._message,))
        self._write(12, 0)
        self.flips += 1

    def _write(self, offset: int, value: int) -> None:
        bar, base = self._entry
        self._function.bar_write(bar, base + offset, 4, value)

    def _dwell(self) -> None:
        if self._random.random() < 0.2:
            time.sleep(1e-4)  # long enough for a call to find it masked


def account(scene: Scene) -> None:
    """Make requests, one after another, until there have been enough of everything; count what arrives."""
    vm, witness = scene.driver.machine.vm, scene.witness
    assert scene.function.msix is not None
    scene.function.msix.connect(Hesitant(vm))
    flipper = Flipper(scene)
    before = witness.arrived
    flipper.start()
    calls, end = 0, time.monotonic() + WHOLE_S
    while (calls < CALLS or flipper.flips < FLIPS) and flipper.is_alive():
        assert time.monotonic() < end, f"only {calls} calls and {flipper.flips} flips in {WHOLE_S} s"
        scene.request()
        calls += 1
        deadline = time.monotonic() + LIMIT_S
        while witness.arrived - before < calls:
            vm.take_msis()
            time.sleep(1e-4)  # else the controller's lock is hardly ever free for the other vCPU
            assert time.monotonic() < deadline, f"call {calls} was lost, {flipper.flips} flips in"
    flipper.finish()
    vm.take_msis()
    print(f"{calls} calls, {flipper.flips} flips", file=sys.stderr)
    assert witness.stray == [], "what arrived was not in force"
    assert witness.arrived - before == calls, "every call arrives once"


def watch(machine: SimMachine) -> Witness:
    """Before anything is bound."""
    witness = Witness(machine.vm.ioapic_pins)
    machine.vm.interrupts = witness
    return witness


@contextmanager
def running(machine: SimMachine) -> Iterator[None]:
    """All loops on threads of their own."""
    machine.settle()
    loops = [machine.main_loop, *machine.io_loops.values()]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()


@pytest.mark.stress
def test_io_loop_of_this_process() -> None:
    with machine_with() as machine:
        witness = watch(machine)
        driver = machine.driver(SLOT)
        driver.start(VERSION_1)
        with running(machine):
            account(Scene(driver, witness, queue=0, out=b"ab", in_=(2,)))


@pytest.mark.stress
def test_configuration_change() -> None:
    with machine_with() as machine:
        witness = watch(machine)
        driver = machine.driver(SLOT)
        driver.start(VERSION_1)
        account(ConfigScene(driver, witness, queue=0, out=b""))


@pytest.mark.stress
def test_kernel_that_writes_the_call() -> None:
    with vhost_card() as card:
        witness = watch(card.machine)
        card.driver.start(VERSION_1)
        with running(card.machine):
            account(Scene(card.driver, witness, queue=1, out=b"ab", in_=(2,)))


@pytest.mark.stress
@pytest.mark.process
def test_other_process_that_writes_the_call(tmp_path: Path) -> None:
    path = tmp_path / "console.sock"
    program = (sys.executable, "-m", "acrn_dm.export.vhost_user.cli", "console", f"--socket-path={path}")
    daemon = Daemon([*program, f"socket:port0={tmp_path / 'port0'}:server"], path, tmp_path / "log")
    daemon.start()
    try:
        with SimMachine(memory=32 * MIB, plugins=[virtio_console, vhost_user]) as machine:
            witness = watch(machine)
            machine.add("virtio-console", f"vhost-user={path}", slot=SLOT)
            driver = machine.driver(SLOT)
            driver.start(VERSION_1)
            with running(machine):
                account(Scene(driver, witness, queue=1, out=b"x"))
    finally:
        daemon.kill()
