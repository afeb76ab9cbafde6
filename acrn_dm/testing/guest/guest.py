"""A guest in a stock kernel, with a device of whoever asks for it, as a context."""

import itertools
import shlex
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.inner import python
from acrn_dm.testing.guest.inner.shell import BOOT_LIMIT, CONSOLE_SLOT

FIRST_SLOT = CONSOLE_SLOT + 1
SLOTS = 32


class Shell(Protocol):
    """A guest that is up, and what it runs on. What fails is a HarnessError."""

    def run(self, command: str, timeout: float, shown: str) -> str:
        """The output of a command line that is called *shown* in messages."""

    def reboot(self, timeout: float) -> None:
        """Reset the machine, until the guest is there again."""

    def power_off(self) -> int:
        """End it; acrn-dm's exit status."""

    def kill(self) -> None:
        """End it at once."""

    def console(self) -> str:
        """What the guest's kernel has printed."""

    def log(self) -> str:
        """What acrn-dm has logged."""


class Guest:
    """A guest that is up within a ``with`` block, at whose end it is powered off.

    A block that ends well and an acrn-dm that then does not end with status 0 are a HarnessError.
    """

    def __init__(self, boot: Callable[[], Shell]) -> None:
        self._boot = boot
        self._shell: Shell | None = None

    def __enter__(self) -> Self:
        self._shell = self._boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shell, self._shell = self._shell, None
        if shell is None or error is not None:
            self._kill(shell)
            return
        try:
            status = shell.power_off()
        except HarnessError as late:
            self._kill(shell)
            raise HarnessError(f"no good end when the guest powered off: {late}") from late
        if status:
            raise HarnessError(f"acrn-dm ended with {status} when the guest powered off: {shell.log()[-2000:]}")

    def run(self, command: str, *, timeout: float = 60.0) -> str:
        """What a shell command line, or several lines, print in the guest, both outputs as they come, stripped.

        The shell is busybox's, with its commands; each call has a subshell of its own, as root, with /proc, /sys and
        /dev, and nothing to read. Raises CommandFailed for a status other than 0, HarnessTimeout past *timeout*
        seconds, HarnessError when the guest crashes or acrn-dm ends; the messages have what was said last.
        """
        return self._up.run(f"(\n{command}\n)", timeout, shown=command)

    def python(self, source: str, *, timeout: float = 60.0) -> str:
        """What lines of Python print in the guest, both outputs, stripped. Raises as ``run``, a traceback included.

        It is the version of Python that runs the test, with the standard library but for what needs further libraries
        (ssl, sqlite3, curses, tkinter); each call is a process of its own.
        """
        return self._up.run(f"{python.PROGRAM} -I -S -c {shlex.quote(source)}", timeout, shown=source)

    def reboot(self, *, timeout: float = BOOT_LIMIT) -> None:
        """Reset the machine from within, and wait until the guest is up again; its files are those of a first boot."""
        self._up.reboot(timeout)

    def console(self) -> str:
        """What the guest's kernel has printed on the first serial port."""
        return self._up.console()

    def log(self) -> str:
        """What acrn-dm has logged, warnings and worse."""
        return self._up.log()

    @property
    def _up(self) -> Shell:
        if self._shell is None:
            raise HarnessError("the guest is not up: use it as a context (with ... as guest)")
        return self._shell

    @staticmethod
    def _kill(shell: Shell | None) -> None:
        if shell is not None:
            shell.kill()


def slots_for(devices: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Arguments ``-s SLOT,DEVICE`` for *devices*, in the first slots that no ``-s`` of *arguments* names."""
    named = [text for option, text in itertools.pairwise(arguments) if option in ("-s", "--pci_slot")]
    named += [word.partition("=")[2] for word in arguments if word.startswith("--pci_slot=")]
    places = [text.partition(",")[0].split(":") for text in named]  # slot, slot:function or bus:slot:function
    taken = {place[len(place) // 3] for place in places}
    free = [slot for slot in range(FIRST_SLOT, SLOTS) if str(slot) not in taken]
    return [word for slot, device in zip(free, devices, strict=False) for word in ("-s", f"{slot},{device}")]
