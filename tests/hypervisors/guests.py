"""The guests of the protocol's tests, with one face: a real vCPU that runs code, and two simulated ones."""

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from acrn_dm.contract.hypervisor import Hypervisor, VmEvent
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from acrn_dm.hypervisors.lifecycle import State
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors import guest_program as gp
from tests.hypervisors.acrn.fake_acrn_vm import FakeVm, VcpuGoneError
from tests.hypervisors.acrn.fake_hsm import FakeHsm

PATIENCE_S = 20.0

LONG_MODE = BootRegisters(
    rip=gp.CODE,
    code=Segment(selector=gp.CODE_SELECTOR, access=0xA09B),  # G, L, present, code, accessed
    data=Segment(selector=gp.DATA_SELECTOR, access=0xC093),
    cr0=0x8000_0031,  # PG, NE, ET, PE
    cr3=gp.PML4,
    cr4=0x20,  # PAE
    efer=0x500,  # LMA, LME
    gdt_base=gp.GDT,
    gdt_limit=23,
    rsp=gp.STACK_TOP,
)


@attrs.define(eq=False)
class Recorder:
    """A ``Dispatch`` that writes down every access and answers reads from a table."""

    accesses: list[tuple[Any, ...]] = attrs.field(factory=list)  # ("out", port, size, value), ("load", gpa, size) ...
    events: list[tuple[VmEvent, str]] = attrs.field(factory=list)
    answers: dict[int, int] = attrs.field(factory=dict)
    on_access: Callable[[tuple[Any, ...]], None] = lambda access: None  # on the vCPU's thread
    hold: bool = False
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False)

    def pio_read(self, port: int, size: int) -> int:
        self._note("in", port, size)
        return self.answers.get(port, 0)

    def pio_write(self, port: int, size: int, value: int) -> None:
        self._note("out", port, size, value)

    def mmio_read(self, gpa: int, size: int) -> int:
        self._note("load", gpa, size)
        return self.answers.get(gpa, 0)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self._note("store", gpa, size, value)

    def pci_config_read(self, function: int, register: int, size: int) -> int:
        self._note("config in", function, register, size)
        return self.answers.get(function << 12 | register, 0)

    def pci_config_write(self, function: int, register: int, size: int, value: int) -> None:
        self._note("config out", function, register, size, value)

    def vcpu_must_wait(self) -> bool:
        return self.hold

    def vm_event(self, event: VmEvent, detail: str) -> None:
        with self._changed:
            self.events.append((event, detail))
            self._changed.notify_all()

    def _note(self, *access: Any) -> None:
        self.on_access(access)
        with self._changed:
            self.accesses.append(access)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), (self.accesses, self.events)


@attrs.define(eq=False)
class Guest:
    """A virtual machine with 4 MiB of RAM and a recorder."""

    vm: Hypervisor
    memory: GuestMemory = attrs.field(init=False)
    recorder: Recorder = attrs.field(factory=Recorder, init=False)
    _results: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = GuestMemory.allocate([MemoryRange(gpa=0, size=gp.RAM_SIZE)])
        for region in self.memory.regions:
            self.vm.map_memory(region)

    def load(self, *steps: gp.Step) -> None:
        """Put the program into RAM and set the registers."""
        parts, self._results = gp.image(steps)
        for gpa, data in parts.items():
            self.memory.write(gpa, data)
        self.vm.set_boot_registers(LONG_MODE)

    def start(self, *steps: gp.Step) -> None:
        """Load and run."""
        self.load(*steps)
        self.vm.run(self.recorder)

    def settle(self) -> None:
        """Let a simulated guest go as far as it can; a real one does by itself."""

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds, which an access or event makes true."""
        self.settle()
        self.recorder.wait_for(condition)

    def wait_access(self, *access: Any) -> None:
        """Wait until the device model has seen this access."""
        self.wait_for(lambda: access in self.recorder.accesses)

    def finish(self) -> list[tuple[Any, ...]]:
        """Wait for the program's end; return its accesses."""
        done = ("out", gp.DONE_PORT, 1, 1)
        self.wait_access(*done)
        return [access for access in self.recorder.accesses if access != done]

    def results(self) -> list[int]:
        """What the steps that read have read."""
        return list(struct.unpack(f"<{self._results}Q", self.memory.read(gp.RESULTS, 8 * self._results)))

    def close(self) -> None:
        self.vm.close()
        self.memory.close()


@attrs.define(eq=False)
class HsmGuest(Guest):
    """The steps are performed by a thread, against the module's stand-in."""

    vm: AcrnVm
    hsm: FakeHsm
    errors: list[Exception] = attrs.field(factory=list, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)

    def start(self, *steps: gp.Step) -> None:
        self.join()
        super().start(*steps)
        program = _HsmProgram(self.hsm.vm, self.memory)
        self._thread = threading.Thread(target=self._run, args=(program, steps), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.vm.stop()
        self.join()
        super().close()
        self.hsm.close()
        assert self.errors == []

    def join(self) -> None:
        """Wait for the thread of a vCPU that has been paused, or has come to its program's end."""
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()

    def _run(self, program: "_HsmProgram", steps: tuple[gp.Step, ...]) -> None:
        try:
            program.perform(steps)
        except VcpuGoneError:
            pass
        except Exception as e:
            self.errors.append(e)


@attrs.define(eq=False)
class _HsmProgram:
    vm: FakeVm
    memory: GuestMemory
    handled: int = 0
    lines: dict[int, gp.RouteLine] = attrs.field(factory=dict)
    epoch: int = attrs.field(init=False)  # of the run; the machine may be stopped before the program's thread waits

    def __attrs_post_init__(self) -> None:
        self.epoch = self.vm.epoch

    def perform(self, steps: tuple[gp.Step, ...]) -> None:
        results: list[int] = []
        for step in (*steps, gp.Out(gp.DONE_PORT, 1, 1)):
            match step:
                case gp.AwaitInterrupts():
                    while self.handled < step.total:
                        self._wait(self._pending)
                        self._interrupts()
                case gp.Spin():
                    self._wait(lambda: False)
                case gp.TripleFault():
                    self.vm.triple_fault()
                    return
                case _:
                    self._access(step, results)
            self.memory.write(gp.RESULTS, struct.pack(f"<{len(results)}Q", *results))

    def _access(self, step: gp.Step, results: list[int]) -> None:
        match step:
            case gp.RouteLine():
                self.lines[step.gsi] = step
            case gp.OutString():
                for i in range(0, len(step.data), step.size):
                    self.vm.pio_write(step.port, step.size, int.from_bytes(step.data[i : i + step.size], "little"))
            case gp.Out():
                self.vm.pio_write(step.port, step.size, step.value)
            case gp.In():
                results.append(self.vm.pio_read(step.port, step.size))
            case gp.Store():
                self.vm.mmio_write(step.gpa, step.size, step.value)
            case gp.Load():
                results.append(self.vm.mmio_read(step.gpa, step.size))
            case _:
                raise NotImplementedError(step)

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self.vm.hsm.changed:
            self.vm.hsm.changed.wait_for(lambda: condition() or self.vm.epoch != self.epoch)
            if self.vm.epoch != self.epoch:
                raise VcpuGoneError

    def _pending(self) -> bool:
        return bool(self.vm.pending_msis) or any(self.vm.asserted(gsi) for gsi in self.lines)

    def _interrupts(self) -> None:
        for _, data in self.vm.take_msis():
            self._handle(data & 0xFF)
        for gsi, route in self.lines.items():
            if self.vm.asserted(gsi):
                self._handle(route.vector)

    def _handle(self, vector: int) -> None:
        self.vm.pio_write(gp.VECTOR_PORT, 1, vector)
        self.handled += 1


@attrs.define(eq=False)
class SimGuest(Guest):
    """The steps are performed when somebody waits."""

    vm: SimVm
    _running: Iterator[None] = attrs.field(factory=lambda: iter(()), init=False)
    _handled: int = attrs.field(default=0, init=False)
    _lines: dict[int, gp.RouteLine] = attrs.field(factory=dict, init=False)
    _seen: int = attrs.field(default=0, init=False)  # line changes looked at

    def load(self, *steps: gp.Step) -> None:
        super().load(*steps)
        self._handled, self._lines, self._seen = 0, {}, len(self.vm.interrupts.changes)
        self._running = self._perform(steps)

    def settle(self) -> None:
        next(self._running, None)

    def _perform(self, steps: tuple[gp.Step, ...]) -> Iterator[None]:
        """Yields where the guest has to wait."""
        results: list[int] = []
        for step in (*steps, gp.Out(gp.DONE_PORT, 1, 1)):
            while self.vm.state is not State.RUNNING:
                yield
            match step:
                case gp.AwaitInterrupts():
                    while self._handled < step.total:
                        if not self._interrupt():
                            yield
                case gp.Spin():
                    while True:
                        yield
                case gp.TripleFault():
                    self.vm.vcpu_ends(VmEvent.TRIPLE_FAULT)
                    return
                case _:
                    self._access(step, results)
            self.memory.write(gp.RESULTS, struct.pack(f"<{len(results)}Q", *results))

    def _access(self, step: gp.Step, results: list[int]) -> None:
        match step:
            case gp.Out():
                self.vm.pio_write(step.port, step.size, step.value)
            case gp.OutString():
                for i in range(0, len(step.data), step.size):
                    value = int.from_bytes(step.data[i : i + step.size], "little")
                    self.vm.pio_write(step.port, step.size, value)
            case gp.In():
                results.append(self.vm.pio_read(step.port, step.size))
            case gp.Store():
                self.vm.mmio_write(step.gpa, step.size, step.value)
            case gp.Load():
                results.append(self.vm.mmio_read(step.gpa, step.size))
            case gp.RouteLine():
                self._lines[step.gsi] = step
            case _:
                raise NotImplementedError(step)

    def _interrupt(self) -> bool:
        """Run the handlers of what is pending; return whether there was anything."""
        before = self._handled
        for message in self.vm.take_msis():
            self._handle(message.data & 0xFF)
        for gsi, route in self._lines.items():
            if route.edge:
                for change in self.vm.interrupts.changes[self._seen :]:
                    if change.asserted and change.gsi == gsi:
                        self._handle(route.vector)
            elif self.vm.line(gsi):
                self._handle(route.vector)
                self.vm.eoi(gsi)
        self._seen = len(self.vm.interrupts.changes)
        return self._handled > before

    def _handle(self, vector: int) -> None:
        self.vm.pio_write(gp.VECTOR_PORT, 1, vector)
        self._handled += 1
