"""A virtual machine without vCPUs: the caller is the guest's processor, by ``pio_*`` and ``mmio_*``.

It keeps the contract of the real ones, so that devices and machine can be tested in this process without privileges. An
access takes the same way as on KVM: RAM, then ioeventfds, then the device model. What happened is kept in plain lists.
"""

import errno
import mmap
import threading
from collections.abc import Callable
from typing import Any

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.base.records import define, frozen
from acrn_dm.contract.hypervisor import Dispatch, VmEvent
from acrn_dm.contract.processors import ProcessorPower
from acrn_dm.contract.registers import BootRegisters
from acrn_dm.hypervisors.lifecycle import AT_REST, OPEN, Lifecycle, State
from acrn_dm.hypervisors.sim.accesses import Accesses
from acrn_dm.hypervisors.sim.irq import InterruptController, KickTable
from acrn_dm.memory.guest_memory import MemoryRegion


@frozen(kw_only=True)
class Call:
    """One call of the contract, in the order they came; *argument* is its record, None if it has none."""

    name: str
    argument: object = None
    assign: bool | None = None  # of ``ioeventfd`` and ``irqfd``


@define(eq=False)
class SimVm:
    """One virtual machine; keeps ``contract.hypervisor.Hypervisor``. Its calls may come from any thread, as on the real
    ones.
    """

    name: str = "vm"
    vcpus: int = 1
    ioapic_pins: int = 24
    pins_memory: bool = False
    fault_powers_off: bool = False
    calls: list[Call] = attrs.field(factory=list, init=False, repr=False)
    regions: list[MemoryRegion] = attrs.field(factory=list, init=False)
    boot_registers: BootRegisters | None = attrs.field(default=None, init=False)
    kicks: KickTable = attrs.field(init=False, repr=False)
    # Told of each Call, of the IoEventFd of each kick, of each MsiMessage that arrives and LineChange, as they happen.
    watchers: list[Callable[[object], None]] = attrs.field(factory=list, init=False, repr=False)
    interrupts: InterruptController = attrs.field(init=False, repr=False)
    _dispatch: Dispatch = attrs.field(init=False, repr=False)  # set by ``run``
    _life: Lifecycle = attrs.field(factory=Lifecycle, init=False)
    _faults: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False)  # the lists and tables above
    _access: Accesses = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._access = Accesses(self._life)
        self.kicks = KickTable(self._tell)
        self.interrupts = InterruptController(self.ioapic_pins, self._tell)

    # What a test may ask for

    def fail(self, call: str, err: int, *, after: int = 0) -> None:
        """Let one future *call* fail with errno *err*: the next one, or the one that comes *after* so many others."""
        self._faults.setdefault(call, []).append((after, err))

    def poll(self) -> None:
        """Look at every irqfd: what was signalled by now has arrived."""
        with self._lock:
            self.interrupts.poll()

    @property
    def state(self) -> State:
        """Where in its life cycle the machine is."""
        return self._life.state

    @property
    def msis(self) -> list[MsiMessage]:
        """Every MSI delivered so far, whether injected or by an irqfd."""
        with self._lock:
            self.interrupts.poll()
            return list(self.interrupts.msis)

    def take_msis(self) -> list[MsiMessage]:
        """Return the MSIs that arrived since the last call, in order."""
        with self._lock:
            return self.interrupts.take_msis()

    def line(self, gsi: int) -> bool:
        """Return the level of a line."""
        with self._lock:
            return self.interrupts.level(gsi)

    def eoi(self, gsi: int) -> None:
        """Acknowledge a level-triggered interrupt as the guest's local APIC does."""
        with self._lock:
            self.interrupts.eoi(gsi)

    # The guest's processor

    def pio_read(self, port: int, size: int) -> int:
        """IN. Raises RuntimeError unless the vCPUs run, as do all accesses."""
        _check_access(size, (1, 2, 4), port, 1 << 16)
        with self._access:
            return self._dispatch.pio_read(port, size) & _ones(size)

    def pio_write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        _check_access(size, (1, 2, 4), port, 1 << 16)
        with self._access:
            if not self._take_kick(Space.PIO, port, size, value & _ones(size)):
                self._dispatch.pio_write(port, size, value & _ones(size))

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load, from RAM or a device."""
        _check_access(size, (1, 2, 4, 8), gpa, 1 << 52)
        with self._access:
            ram = self._ram(gpa, size)
            if ram is not None:
                mapping, offset = ram
                return int.from_bytes(mapping[offset : offset + size], "little")
            return self._dispatch.mmio_read(gpa, size) & _ones(size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Store, to RAM or a device."""
        _check_access(size, (1, 2, 4, 8), gpa, 1 << 52)
        value &= _ones(size)
        with self._access:
            ram = self._ram(gpa, size)
            if ram is not None:
                mapping, offset = ram
                mapping[offset : offset + size] = value.to_bytes(size, "little")
            elif not self._take_kick(Space.MMIO, gpa, size, value):
                self._dispatch.mmio_write(gpa, size, value)

    def vcpu_ends(self, event: VmEvent, detail: str = "") -> None:
        """A vCPU can't go on."""
        with self._access:
            self._dispatch.vm_event(event, detail)

    # The contract

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM. Raises HostError."""
        with self._lock:
            self._record("map_memory", region)
            if region.gpa % mmap.PAGESIZE or region.size % mmap.PAGESIZE or not region.size:
                raise HostError("map_memory", err=errno.EINVAL, hint="address and size are multiples of the page size")
            if any(region.gpa < r.gpa + r.size and r.gpa < region.gpa + region.size for r in self.regions):
                raise HostError("map_memory", err=errno.EEXIST, hint="the range overlaps memory that is mapped already")
            self.regions.append(region)

    def unmap_memory(self, region: MemoryRegion) -> None:
        """*region* is no memory any more, if it was. Raises HostError."""
        with self._lock:
            self._record("unmap_memory", region)
            if region in self.regions:
                self.regions.remove(region)

    @property
    def apic_ids(self) -> tuple[int, ...]:
        """0, 1, 2 and so on."""
        return tuple(range(self.vcpus))

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """None: there is no processor."""
        return ()

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """Remember the entry state."""
        self._life.require("set_boot_registers", *AT_REST)
        self._record("set_boot_registers", registers)
        self.boot_registers = registers

    def run(self, dispatch: Dispatch) -> None:
        """Allow accesses from now on."""
        self._life.require("run", State.READY)
        self._record("run")
        self._dispatch = dispatch
        self._life.state = State.RUNNING

    def pause(self) -> None:
        """Refuse accesses; when this returns none is in ``dispatch``."""
        self._rest("pause", State.PAUSED, (State.RUNNING,))

    def resume(self) -> None:
        """Allow accesses again."""
        self._record("resume")
        self._access.go_on()

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; no accesses, bindings gone, memory mapped."""
        self._life.require("reset", State.READY, State.RUNNING, State.PAUSED)
        self._rest("reset", State.READY, OPEN)
        self._power_off()

    def stop(self) -> None:
        """Refuse accesses for good."""
        self._rest("stop", State.STOPPED, OPEN)

    def close(self) -> None:
        """Give everything back."""
        self._rest("close", State.CLOSED, OPEN)
        self._power_off()
        self.regions.clear()

    def inject_msi(self, message: MsiMessage) -> None:
        """Deliver *message* once; on a closed machine it vanishes. Raises HostError."""
        with self._lock:
            self._record("inject_msi", message)
            if self._life.state is not State.CLOSED:
                self.interrupts.deliver(message)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the logical level of *gsi*. Raises HostError."""
        with self._lock:
            self._record("set_irq_line", (gsi, asserted))
            self.interrupts.set_line(gsi, asserted)

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError (EEXIST for a duplicate, ENOENT for an unknown one)."""
        self._bind("ioeventfd", binding, assign, self.kicks.assign if assign else self.kicks.deassign)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. Raises HostError (EBUSY for an eventfd in use, ENOENT for an unknown one)."""
        self._bind("irqfd", binding, assign, self.interrupts.assign if assign else self.interrupts.deassign)

    # Behind it

    def _bind(self, name: str, binding: Any, assign: bool, change: Callable[[Any], None]) -> None:
        with self._lock:
            self._record(name, binding, assign)
            self._life.require(name, *OPEN)
            change(binding)

    def _record(self, name: str, argument: object = None, assign: bool | None = None) -> None:
        """Keep the call, and fail it if a test asked for that."""
        call = Call(name=name, argument=argument, assign=assign)
        self.calls.append(call)
        self._tell(call)
        faults = self._faults.pop(name, [])
        due = next((err for after, err in faults if after == 0), None)
        self._faults[name] = [(after - 1, err) for after, err in faults if after]
        if due is not None:
            raise HostError(name, err=due)

    def _tell(self, event: object) -> None:
        for watcher in tuple(self.watchers):
            watcher(event)

    def _rest(self, call: str, state: State, allowed: tuple[State, ...]) -> None:
        """Go to *state* from one of the *allowed* ones, and wait until no access is under way."""
        self._access.require_outside(call)
        self._record(call)
        self._access.rest(state, allowed)

    def _power_off(self) -> None:
        with self._lock:
            self.kicks.clear()
            self.interrupts.clear()
            self.boot_registers = None

    def _take_kick(self, space: Space, addr: int, size: int, value: int) -> bool:
        with self._lock:
            return self.kicks.signal(space, addr, size, value)

    def _ram(self, gpa: int, size: int) -> tuple[mmap.mmap, int] | None:
        with self._lock:
            for r in self.regions:
                if r.gpa <= gpa and gpa + size <= r.gpa + r.size:
                    return r.mapping, gpa - r.gpa
        return None


def _ones(size: int) -> int:
    return (1 << 8 * size) - 1


def _check_access(size: int, sizes: tuple[int, ...], addr: int, limit: int) -> None:
    if size not in sizes or not 0 <= addr <= limit - size:
        raise ValueError(f"no processor makes an access of {size} bytes at {addr:#x}")
