"""The processor's part: does what the steps of a script say, and compares what reads return."""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from acrn_dm import Dispatch, Space
from acrn_dm_replay import script
from acrn_dm_replay.interrupts import Interrupts


class MismatchError(Exception):
    """The machine does something else than the script says."""


class Memory(Protocol):
    """What the processor can reach without the device model: RAM, and kicks that an eventfd takes."""

    def ram(self, gpa: int, size: int) -> memoryview | None:
        """RAM from *gpa* on, or None where a byte of it is none."""

    def kick(self, space: Space, addr: int, size: int, value: int) -> bool:
        """Whether an eventfd took this write."""


@attrs.define(eq=False)
class Player:
    """One processor with its place in the script; a thread at a time plays it."""

    _steps: Sequence[script.Step]
    _memory: Memory
    _interrupts: Interrupts
    _say: Callable[[str], None]  # where the transcript goes, a line at a time
    _next: int = attrs.field(default=0, init=False)
    _restarts: int = attrs.field(default=0, init=False)  # that no ``restart`` has used up yet

    def restarted(self) -> None:
        """The processor begins anew, after a reset or a sleep."""
        self._restarts += 1

    def play(self, dispatch: Dispatch, halt: threading.Event) -> bool:
        """Go on until *halt* is set, or what was asked for has to come first. Returns whether the script is over.

        Raises MismatchError.
        """
        while self._next < len(self._steps):
            step = self._steps[self._next]
            try:
                text = self._do(step, dispatch, halt)
            except MismatchError as e:
                raise MismatchError(f"{step.where}: {step.text}: {e}") from None
            if text is None:
                return False
            self._say(text)
            self._next += 1
            if dispatch.vcpu_must_wait() or halt.is_set():
                return False
        return True

    def _do(self, step: script.Step, dispatch: Dispatch, halt: threading.Event) -> str | None:
        """Do one step and return its line of the transcript; None if it was given up because of *halt*."""
        match step.action:
            case script.Read() as read:
                return self._read(step, read, dispatch)
            case script.Write() as write:
                self._write(write, dispatch)
            case script.Get() as get:
                found = bytes(self._ram(get.gpa, get.length))
                if get.expected not in (None, found):
                    raise MismatchError(f"it is {found.hex()}")
                return f"get {get.gpa:#x} {get.length} {found.hex()}"
            case script.Put() as put:
                self._ram(put.gpa, len(put.data))[:] = put.data
            case script.AwaitMessage() as message:
                return self._wait(step, halt, lambda: self._interrupts.take(message.data), message.seconds)
            case script.AwaitLine() as line:
                return self._wait(step, halt, lambda: self._interrupts.level(line.gsi) == line.level, line.seconds)
            case script.AwaitRestart():
                if not self._restarts:
                    halt.wait()
                    return None
                self._restarts -= 1
        return step.text

    def _read(self, step: script.Step, read: script.Read, dispatch: Dispatch) -> str:
        ram = self._memory.ram(read.addr, read.size) if read.space is Space.MMIO else None
        if ram is not None:
            value = int.from_bytes(ram, "little")
        elif read.space is Space.MMIO:
            value = dispatch.mmio_read(read.addr, read.size)
        else:
            value = dispatch.pio_read(read.addr, read.size)
        if read.expected is not None and not read.expected.met(value):
            raise MismatchError(f"it is {value:#x}")
        mask = "" if read.expected is None else f"/{read.expected.mask:#x}"
        return f"{step.text.split()[0]} {read.addr:#x} {read.size} {value:#x}{mask}"

    def _write(self, write: script.Write, dispatch: Dispatch) -> None:
        ram = self._memory.ram(write.addr, write.size) if write.space is Space.MMIO else None
        if ram is not None:
            ram[:] = write.value.to_bytes(write.size, "little")
        elif self._memory.kick(write.space, write.addr, write.size, write.value):
            return
        elif write.space is Space.MMIO:
            dispatch.mmio_write(write.addr, write.size, write.value)
        else:
            dispatch.pio_write(write.addr, write.size, write.value)

    def _wait(self, step: script.Step, halt: threading.Event, met: Callable[[], bool], seconds: float) -> str | None:
        came = False

        def over() -> bool:
            nonlocal came
            came = met()
            return came or halt.is_set()

        if not self._interrupts.wait(over, seconds):
            raise MismatchError(f"nothing came in {seconds:g} s")
        return step.text if came else None

    def _ram(self, gpa: int, size: int) -> memoryview:
        ram = self._memory.ram(gpa, size)
        if ram is None:
            raise MismatchError("no RAM there")
        return ram
