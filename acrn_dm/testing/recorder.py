"""A recorder: what happened in a simulated machine, of all kinds in one sequence, with order and time.

::

    with SimMachine(clock=VirtualClock()) as machine, machine.record() as recorder:
        ...
        recorder.assert_sequence("kick 3.0 queue 0", "interrupt 3.0 vector 1")
        print(recorder)

Kinds are ``interrupt`` (an MSI that arrived, a line that changed), ``kick`` (a write of the guest that signalled an
ioeventfd), ``eventfd`` (one bound to a kick or a call, or unbound), ``call`` (another call of the hypervisor), ``hook``
(a plugin's, with what it returned or raised) and ``log``.
"""

import fnmatch
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import attrs

from acrn_dm.base.events.clock import Clock
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.hypervisors.sim.irq import LineChange
from acrn_dm.hypervisors.sim.vm import Call, SimVm
from acrn_dm.pci.bus import PciBus
from acrn_dm.testing.guest_pci import message_name
from acrn_dm.virtio.pci import modern
from acrn_dm.virtio.pci.transport import MODERN_BAR, VirtioPci


class Recorded(Protocol):
    """The machine that is recorded: a ``SimMachine``."""

    clock: Clock
    vm: SimVm
    bus: PciBus
    plugins: PluginManager


@attrs.frozen(kw_only=True)
class Happening:
    """One event: its place in the sequence, the machine's time in seconds, and what it was. *data* is the record that
    it was told with: a ``MsiMessage``, an ``IoEventFd``, the arguments of a hook, a ``logging.LogRecord``.
    """

    order: int
    at: float
    kind: str
    what: str
    data: object = attrs.field(default=None, repr=False, eq=False)

    @property
    def line(self) -> str:
        """Kind and what, as ``assert_sequence`` matches it."""
        return f"{self.kind} {self.what}"

    def __str__(self) -> str:
        return f"{self.order:4} {self.at:12.6f} s  {self.kind:9} {self.what}"


class Recorder(logging.Handler):
    """The recorder of one machine, from ``start`` (or ``with``) to ``stop``. Records from any thread; what another
    thread's eventfd signals is in the sequence when the machine looks at it.
    """

    def __init__(self, machine: Recorded, level: int = logging.INFO) -> None:
        """*level*: log records from there on; the package's loggers are set to it meanwhile."""
        super().__init__(level)
        self.events: list[Happening] = []
        self._machine = machine
        self._undo: list[Callable[[], object]] = []

    # Using it

    def of(self, *kinds: str) -> list[Happening]:
        """The events of these kinds, of all without any, in order."""
        self._machine.vm.poll()
        return [event for event in list(self.events) if not kinds or event.kind in kinds]

    def lines(self, *kinds: str) -> list[str]:
        """The same as ``kind what``, to compare with a list."""
        return [event.line for event in self.of(*kinds)]

    def clear(self) -> None:
        """Forget what was recorded; order goes on."""
        self._machine.vm.poll()
        self._first += len(self.events)
        self.events.clear()

    def assert_sequence(self, *patterns: str) -> list[Happening]:
        """Return the events that match *patterns*, which have to come in this order; others may stand between them.

        A pattern is a line with ``*`` and ``?`` as in a shell: ``"log *reset*"``. Raises AssertionError with the whole
        sequence and the first pattern that did not come.
        """
        found: list[Happening] = []
        rest: Iterator[Happening] = iter(self.of())
        for pattern in patterns:
            match = next((event for event in rest if fnmatch.fnmatchcase(event.line, pattern)), None)
            if match is None:
                behind = f" after {found[-1].line!r}" if found else ""
                raise AssertionError(f"no {pattern!r}{behind}:\n{self}")
            found.append(match)
        return found

    def __str__(self) -> str:
        return "\n".join(map(str, self.of())) or "nothing was recorded"

    # Life

    def start(self) -> Self:
        """Record from now on."""
        vm, root, ours = self._machine.vm, logging.getLogger(), logging.getLogger("acrn_dm")
        before = ours.level
        vm.watchers.append(self._happened)
        root.addHandler(self)
        ours.setLevel(min(self.level, ours.getEffectiveLevel()))
        self._undo = [
            lambda: vm.watchers.remove(self._happened),
            lambda: root.removeHandler(self),
            lambda: ours.setLevel(before),
            self._machine.plugins.watch(self._hook),
        ]
        return self

    def stop(self) -> None:
        """Record no more; what was recorded stays. Idempotent."""
        if self._undo:
            self._machine.vm.poll()
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # What tells it

    def emit(self, record: logging.LogRecord) -> None:
        """A log record (``logging.Handler``)."""
        self._note("log", f"{record.levelname} {record.getMessage()}", record)

    def _hook(self, name: str, arguments: dict[str, object], outcome: str) -> None:
        binding, error = arguments.get("binding"), arguments.get("error")
        how = "bind" if arguments.get("assign") else "unbind"
        about = ""
        if isinstance(binding, IoEventFd | IrqFd):
            about = f" {how} {self._binding(binding)}"
        elif isinstance(error, Exception):
            about = f" {type(error).__name__}: {error}"
        self._note("hook", f"{name}{about}{outcome}", arguments)

    def _happened(self, event: object) -> None:
        if isinstance(event, MsiMessage):
            self._note("interrupt", message_name(event), event)
        elif isinstance(event, LineChange):
            self._note("interrupt", f"line {event.gsi} {'up' if event.asserted else 'down'}", event)
        elif isinstance(event, IoEventFd):
            self._note("kick", self._queue(event), event)
        elif isinstance(event, Call):
            self._called(event)

    def _called(self, call: Call) -> None:
        how = "bind" if call.assign else "unbind"
        if isinstance(call.argument, IoEventFd | IrqFd):
            self._note("eventfd", f"{how} {self._binding(call.argument)}", call.argument)
        elif call.name not in ("inject_msi", "set_irq_line"):  # these are interrupts
            self._note("call", call.name, call.argument)

    def _binding(self, binding: IoEventFd | IrqFd) -> str:
        if isinstance(binding, IoEventFd):
            return f"kick {self._queue(binding)}"
        target = binding.target
        return f"call line {target.gsi}" if isinstance(target, IntxLine) else f"call {message_name(target)}"

    def _queue(self, kick: IoEventFd) -> str:
        for function in self._machine.bus.functions:
            bar = next((b for b in function.bars.values() if b.mapped and b.base <= kick.addr < b.base + b.size), None)
            if bar is not None and isinstance(function, VirtioPci):
                bdf, offset = function.context.bdf, kick.addr - bar.base - modern.NOTIFY_OFFSET
                modern_one = bar is function.bars.get(MODERN_BAR)
                queue = offset // modern.NOTIFY_MULTIPLIER if modern_one else kick.datamatch
                return f"{bdf.slot}.{bdf.func} queue {queue}"
        return f"{kick.space.value} {kick.addr:#x}"

    _first = 0

    def _note(self, kind: str, what: str, data: object) -> None:
        order = self._first + len(self.events)
        self.events.append(Happening(order=order, at=self._machine.clock.monotonic(), kind=kind, what=what, data=data))
