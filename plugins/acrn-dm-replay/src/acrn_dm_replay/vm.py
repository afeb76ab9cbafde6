"""The virtual machine: RAM, eventfds and one thread in place of a vCPU, which plays the script.

At the script's end it powers the machine off, as an operating system does; where the machine does something else than
the script says, it is a vCPU that can't go on, and so the machine fails with that line.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence

import attrs

from acrn_dm import (
    BootRegisters,
    Dispatch,
    HostError,
    IoEventFd,
    IrqFd,
    MemoryRegion,
    MsiMessage,
    ProcessorPower,
    Space,
    VmEvent,
)
from acrn_dm_replay.interrupts import Interrupts
from acrn_dm_replay.player import MismatchError, Player
from acrn_dm_replay.script import Step

PM1_CONTROL = 0x404  # as the FADT says
POWER_OFF = 1 << 13 | 5 << 10  # SLP_EN, and the SLP_TYP that the DSDT has for S5


@attrs.define(eq=False)
class ReplayVm:
    """One virtual machine; keeps ``acrn_dm.Hypervisor``. Control calls come from one thread, the others from any."""

    name: str
    _steps: Sequence[Step] = attrs.field(repr=False)
    _say: Callable[[str], None] = attrs.field(repr=False)
    _finished: Callable[[], None] = attrs.field(default=lambda: None, repr=False)  # the transcript may be closed
    vcpus: int = attrs.field(default=1, init=False)
    ioapic_pins: int = attrs.field(default=24, init=False)
    pins_memory: bool = attrs.field(default=False, init=False)
    fault_powers_off: bool = attrs.field(default=False, init=False)
    _regions: list[MemoryRegion] = attrs.field(factory=list, init=False, repr=False)
    _kicks: list[IoEventFd] = attrs.field(factory=list, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)  # of the two lists
    _interrupts: Interrupts = attrs.field(factory=Interrupts, init=False, repr=False)
    _player: Player = attrs.field(init=False, repr=False)
    _dispatch: Dispatch | None = attrs.field(default=None, init=False, repr=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False, repr=False)
    _halt: threading.Event = attrs.field(factory=threading.Event, init=False, repr=False)
    _started: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._player = Player(self._steps, self, self._interrupts, self._say)

    @property
    def apic_ids(self) -> tuple[int, ...]:
        """One processor."""
        return (0,)

    def processor_power(self) -> tuple[ProcessorPower, ...]:
        """None to choose."""
        return ()

    # Memory

    def map_memory(self, region: MemoryRegion) -> None:
        """Make *region* guest RAM."""
        with self._lock:
            self._regions.append(region)

    def unmap_memory(self, region: MemoryRegion) -> None:
        """Take *region* away again."""
        with self._lock:
            self._regions.remove(region)

    def ram(self, gpa: int, size: int) -> memoryview | None:
        """RAM from *gpa* on, or None where a byte of it is none."""
        with self._lock:
            for region in self._regions:
                if region.gpa <= gpa and gpa + size <= region.gpa + region.size:
                    return memoryview(region.mapping)[gpa - region.gpa : gpa - region.gpa + size]
        return None

    # The processor

    def set_boot_registers(self, registers: BootRegisters) -> None:
        """The script says where it begins; nothing runs."""

    def run(self, dispatch: Dispatch) -> None:
        """Play, from where the script stands."""
        if self._started:
            self._player.restarted()
        self._started, self._dispatch = True, dispatch
        self.resume()

    def resume(self) -> None:
        """Go on."""
        if self._dispatch is not None and self._thread is None:
            self._halt.clear()
            self._thread = threading.Thread(target=self._play, args=(self._dispatch,), name="replay", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Stop between two steps; when this returns, no access is under way."""
        self._halt.set()
        self._interrupts.look()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def reset(self, *, full: bool = False) -> None:
        """Back to power-on; the script stays where it is."""
        self.stop()
        with self._lock:
            self._kicks.clear()
        self._interrupts.clear()

    def stop(self) -> None:
        """Play no more, until ``run``."""
        self.pause()
        self._dispatch = None

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if not self._closed:
            self.reset()
            self._closed = True
            self._regions.clear()
            self._interrupts.close()
            self._finished()

    def _play(self, dispatch: Dispatch) -> None:
        try:
            if self._player.play(dispatch, self._halt):
                dispatch.pio_write(PM1_CONTROL, 2, POWER_OFF)
        except MismatchError as e:
            dispatch.vm_event(VmEvent.INTERNAL_ERROR, str(e))

    # Interrupts and kicks

    def inject_msi(self, message: MsiMessage) -> None:
        """Keep *message* until the script asks for it."""
        if not self._closed:
            self._interrupts.inject(message)

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the logical level of *gsi*. Raises HostError."""
        if not 0 <= gsi < self.ioapic_pins:
            raise HostError("set_irq_line", err=errno.EINVAL)
        if not self._closed:
            self._interrupts.set_level(gsi, asserted)

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register / unregister a kick. Raises HostError."""
        with self._lock:
            if assign and any(_same_write(binding, other) for other in self._kicks):
                raise HostError("ioeventfd", err=errno.EEXIST)
            if not assign and binding not in self._kicks:
                raise HostError("ioeventfd", err=errno.ENOENT)
            (self._kicks.append if assign else self._kicks.remove)(binding)

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register / unregister a call. Raises HostError."""
        self._interrupts.bind(binding, assign)

    def kick(self, space: Space, addr: int, size: int, value: int) -> bool:
        """Whether an eventfd took this write."""
        with self._lock:
            for binding in self._kicks:
                if (binding.space, binding.addr, binding.len) == (space, addr, size) and binding.datamatch in (
                    None,
                    value,
                ):
                    os.eventfd_write(binding.fd, 1)
                    return True
        return False


def _same_write(one: IoEventFd, other: IoEventFd) -> bool:
    """Whether there is a write that both would take."""
    if (one.space, one.addr, one.len) != (other.space, other.addr, other.len):
        return False
    return None in (one.datamatch, other.datamatch) or one.datamatch == other.datamatch
