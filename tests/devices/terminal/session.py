"""A shell with job control on a pseudo-terminal of its own; acrn-dm as its job, with a guest of a few instructions."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.boot.samples import PT_LOAD, make_elf

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60
BASH = ("bash", "--noprofile", "--norc", "-i")  # sets the modes anew whenever a job stops or ends
DASH = ("dash", "-i", "-m")  # leaves them as they are
FLAGS = 2  # of the multiboot header: memory sizes


def guest_image() -> bytes:
    """A multiboot kernel that says "up" on com1 and sleeps for good."""
    magic = 0x1BAD_B002
    header = struct.pack("<III", magic, FLAGS, -(magic + FLAGS) & 0xFFFF_FFFF)
    says = b"\x66\xba\xf8\x03" + b"".join(b"\xb0%c\xee" % byte for byte in b"<up>\r\n")  # mov dx, 0x3f8; mov al; out
    return make_elf(32, [(PT_LOAD, 0x10_0000, header + says + b"\xf4\xeb\xfd", 0x2000)], entry=0x10_000C)


def acrn_dm(folder: Path, *args: str) -> list[str]:
    """The command line of a virtual machine that stays until it is forced off. Skips where there is no KVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that opens")
    image = folder / "guest.elf"
    image.write_bytes(guest_image())
    common = ["--no-plugins", "--hypervisor", "kvm", "--allow-slow-kvm", "-m", "128M", "--hugepages", "off"]
    common += ["--manager-directory", "none", "-s", "0,hostbridge", "-E", str(image)]
    return [sys.executable, "-m", "acrn_dm", *common, *args, "vm"]


def is_raw(fd: int) -> bool:
    """Whether a terminal's Ctrl-C is a character like any other: neither shells nor readline do that."""
    return not termios.tcgetattr(fd)[3] & (termios.ISIG | termios.ICANON)


def state(pid: int) -> str:
    """R, S, T (stopped) and so on; "" when there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@attrs.define(eq=False)
class Session:
    """*terminal* is the open file that the shell has; *master* what its user sees and types on."""

    shell: "subprocess.Popen[bytes]"
    master: int
    terminal: int
    shown: bytes = b""

    def type(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Show what there is to be shown until *condition* holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.shown.decode(errors='replace')}"
            self.look(0.01)

    def look(self, seconds: float) -> None:
        """Take what is shown, or comes within *seconds*."""
        if select.select([self.master], [], [], seconds)[0]:
            self.shown += os.read(self.master, 65536)

    def wait_for(self, text: str) -> None:
        """Wait until *text* is shown, and forget what came before its end."""
        self.wait(lambda: text.encode() in self.shown, f"{text!r} is not shown")
        self.shown = self.shown.partition(text.encode())[2]

    def run(self, command: Sequence[str], *, background: bool = False) -> int:
        """Start a job; its pid when its guest is up."""
        before = self.children()
        self.type(" ".join(command) + (" &" if background else "") + "\n")
        self.wait_for("<up>")
        (pid,) = self.children() - before
        return pid

    def children(self) -> set[int]:
        pid = self.shell.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def status(self) -> int:
        """What the last foreground job left."""
        self.type("echo st$((6 * 7))atus=$?.\n")
        self.wait_for("st42atus=")
        self.wait(lambda: b"." in self.shown, "no status")
        return int(self.shown.partition(b".")[0])

    @property
    def raw(self) -> bool:
        return is_raw(self.terminal)

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.terminal)


@contextmanager
def session(shell: Sequence[str] = BASH) -> Iterator[Session]:
    """Ends whatever is left of its jobs."""
    master, terminal = os.openpty()
    set_size(terminal, 80, 24)

    environment = {**os.environ, "PS1": "ready> ", "TERM": "dumb", "INPUTRC": "/dev/null", "PYTHONPATH": str(ROOT)}
    argv = ["setsid", "--ctty", *shell]
    process = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    made = Session(process, master, terminal)
    try:
        made.wait_for("ready> ")
        yield made
    finally:
        for pid in (*made.children(), process.pid) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        process.wait()
        os.close(master)
        os.close(terminal)
