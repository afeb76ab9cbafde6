"""The faults of one simulated machine: which are armed, what they do to a call, and which happened."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.clock import Clock
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import MsiMessage
from acrn_dm.hypervisors.sim.vm import Call, SimVm
from acrn_dm.pci.bus import PciBus
from acrn_dm.testing.faults.rule import INTERRUPT, Fault, parse
from acrn_dm.testing.faults.seams import Seams, path_of, shorten
from acrn_dm.testing.guest_pci import message_name
from acrn_dm.virtio.pci.transport import VirtioPci

VM, BACKEND = "vm.", "backend."
OVERTAKEN_S = 10.0  # of the host's time: whoever is to overtake comes by then
LOOK_S = 0.001


class Faulty(Protocol):
    """The machine that has faults: a ``SimMachine``."""

    clock: Clock
    vm: SimVm
    bus: PciBus
    main_loop: IoLoop
    io_loops: dict[str, IoLoop]

    def serve_in_python(self) -> None:
        """Serve no queue in C any more."""


class Faults:
    """The faults of a machine, ``machine.faults``. They are armed by a method each, or by a script, once the devices
    are added; calls are counted from then on, in the order in which product code makes them.

    ``log`` has a line for each that happened, ``unused`` the faults that never did.
    """

    def __init__(self, machine: Faulty) -> None:
        self.log: list[str] = []
        self._machine = machine
        self._armed: list[Fault] = []
        self._packages: list[str] = ["acrn_dm"]
        self._seams: Seams | None = None
        self._lock = threading.RLock()
        self._overtaken: dict[str, threading.Event] = {}  # calls that wait until another of their name is done
        self._held: list[MsiMessage] = []  # interrupts that wait to be overtaken

    # Arming

    def fail(self, call: str, **options: Any) -> Fault:
        """Let a call fail with *errno* (default EIO): OSError, or HostError from the hypervisor or a backend."""
        return self.arm(Fault(kind="fail", call=call, **options))

    def delay(self, call: str, seconds: float, **options: Any) -> Fault:
        """Let a call begin, or an interrupt arrive, *seconds* later on the machine's clock."""
        return self.arm(Fault(kind="delay", call=call, seconds=seconds, **options))

    def short(self, call: str, bytes: int, **options: Any) -> Fault:  # the word of the script
        """Let a read or write move no more than *bytes*."""
        return self.arm(Fault(kind="short", call=call, bytes=bytes, **options))

    def reorder(self, call: str, **options: Any) -> Fault:
        """Let a call wait until the next one of its name, in another thread, has returned and the loops have heard of
        that; an interrupt until the next one has arrived.
        """
        return self.arm(Fault(kind="reorder", call=call, **options))

    def lose(self, **options: Any) -> Fault:
        """Let an interrupt (an MSI) not arrive. *of* says which: ``3.0 vector 1``."""
        return self.arm(Fault(kind="lose", call=INTERRUPT, **options))

    def script(self, text: str) -> list[Fault]:
        """Arm each line of *text* (see ``rule``); empty lines and what follows ``#`` are for the reader. Raises
        ValueError, with the line, before any of them is armed.
        """
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        return [self.arm(fault) for fault in [parse(line) for line in lines if line]]

    def arm(self, fault: Fault) -> Fault:
        """Let *fault* happen from now on. Raises ValueError for a call that can't be caught, or not like that."""
        _check(fault)
        if fault.call == INTERRUPT:
            self._machine.vm.interrupts.pass_on = self._interrupt
        elif fault.call.startswith(VM):
            if self._vm_called not in self._machine.vm.watchers:
                self._machine.vm.watchers.append(self._vm_called)
        elif fault.call.startswith(BACKEND):
            self._catch_backends(fault.call)
        else:
            self._seams_now().catch(fault.call)
        with self._lock:
            self._armed.append(fault)
        return fault

    def count(self, *packages: str) -> None:
        """Count calls from these packages, too: helpers of a device that are no methods of it."""
        self._packages += packages

    @property
    def unused(self) -> list[Fault]:
        """The faults that never happened: the test they are in may test nothing."""
        return [fault for fault in self._armed if not fault.happened]

    def clear(self) -> None:
        """Disarm all. Idempotent."""
        with self._lock:
            self._armed.clear()
        if self._seams is not None:
            self._seams.release()
            self._seams = None

    # Happening

    def _seams_now(self) -> Seams:
        if self._seams is None:
            self._machine.serve_in_python()
            self._seams = Seams(self._called, self._packages)
        return self._seams

    def _catch_backends(self, call: str) -> None:
        method = call.removeprefix(BACKEND)
        for function in self._machine.bus.functions:
            if isinstance(function, VirtioPci):
                self._seams_now().catch_method(call, function.data_plane.backend, method)

    def _striking(self, call: str, *, path: str | None = None, of: str | None = None) -> Fault | None:
        """The fault that happens to this call; each that is armed counts it."""
        with self._lock:
            struck = [fault for fault in self._armed if fault.call == call and fault.strikes(path=path, of=of)]
            if not struck:
                return None
            self.log.append(f"{self._machine.clock.monotonic():.6f} s: {struck[0]}")
            return struck[0]

    def _called(self, call: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fault = self._striking(call, path=path_of(args))
        if fault is None:
            return self._overtaking(call, real, args, kwargs)
        if fault.kind == "fail":
            if call.startswith(BACKEND):
                raise HostError(call, err=fault.errno)
            raise OSError(fault.errno, os.strerror(fault.errno))
        if fault.kind == "short":
            return real(*shorten(args, fault.bytes), **kwargs)
        if fault.kind == "delay":
            self._machine.clock.sleep(fault.seconds)
        if fault.kind == "reorder":
            self._wait_until_overtaken(call)
        return real(*args, **kwargs)

    def _overtaking(self, call: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return real(*args, **kwargs)
        finally:
            waiting = self._overtaken.pop(call, None)
            if waiting is not None:
                waiting.set()

    def _wait_until_overtaken(self, call: str) -> None:
        waiting = self._overtaken.setdefault(call, threading.Event())
        until = time.monotonic() + OVERTAKEN_S
        if not waiting.wait(OVERTAKEN_S):
            raise RuntimeError(f"reorder {call}: no other call overtook it")
        # What helper threads have finished reaches its device by the loop: this one comes behind it there, too.
        while sum(loop.in_flight for loop in self._machine.io_loops.values()) > 1 and time.monotonic() < until:
            time.sleep(LOOK_S)

    def _vm_called(self, event: object) -> None:
        if isinstance(event, Call):
            fault = self._striking(VM + event.name)
            if fault is not None and fault.kind == "delay":
                self._machine.clock.sleep(fault.seconds)
            elif fault is not None:
                raise HostError(event.name, err=fault.errno)

    def _interrupt(self, message: MsiMessage) -> list[MsiMessage]:
        """What arrives now, in place of *message*."""
        fault = self._striking(INTERRUPT, of=message_name(message))
        if fault is None:
            held, self._held = self._held, []
            return [message, *held]
        if fault.kind == "reorder":
            self._held.append(message)
        elif fault.kind == "delay":
            self._machine.main_loop.call_later(fault.seconds, lambda: self._machine.vm.interrupts.arrive(message))
        return []


def _check(fault: Fault) -> None:
    """Raise ValueError for what can't happen to such a call."""
    of_the_host = fault.call != INTERRUPT and not fault.call.startswith((VM, BACKEND))
    allowed = {"fail", "delay", "short", "reorder"} if of_the_host else {"lose", "delay", "reorder"}
    if fault.call.startswith((VM, BACKEND)):
        allowed = {"fail", "delay"}  # made one after the other, so none can overtake another
    if fault.kind not in allowed:
        raise ValueError(f"{fault}: what can happen to {fault.call!r} is {', '.join(sorted(allowed))}")
    if fault.path is not None and not of_the_host:
        raise ValueError(f"{fault}: only calls of the host have a path")
