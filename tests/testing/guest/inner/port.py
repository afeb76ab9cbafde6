"""A guest's shell without a guest: shell.sh itself, on a terminal of this host in place of the port.

It may run nothing but what is linked into its folder; what ends or resets a machine is not among that.
"""

import os
import shutil
import signal
import subprocess
import threading
import tty
from pathlib import Path

from acrn_dm.testing.guest.images.initramfs import busybox
from acrn_dm.testing.guest.inner.initramfs import SHELL
from acrn_dm.testing.guest.process import Result

PROGRAMS = ("cat", "sh", "false")
HEAD = """
load_modules() { :; }
port_named() { echo "$PORT"; }
poweroff() { exit 1; }
reboot() { exit 1; }
"""


def script(scratch: Path) -> str:
    """shell.sh with a home of its own, and a plain end in place of a power-off."""
    text = SHELL.read_text().replace("/tmp/output", str(scratch / "output")).replace("poweroff -f", "exit 0")
    assert "poweroff -" not in text  # a shell that has reboot built in runs it
    return HEAD + text


class Port:
    """A process as ``acrn_dm.testing.guest.process.Process``: what it prints is what the guest says."""

    def __init__(self, scratch: Path) -> None:
        programs = scratch / "bin"
        programs.mkdir()
        for name in PROGRAMS:
            (programs / name).symlink_to(str(shutil.which(name)))
        self._output = bytearray()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        environment = {"PATH": str(programs), "PORT": os.ttyname(self._slave)}
        argv = [str(busybox()), "sh", "-c", script(scratch)]
        self._shell = subprocess.Popen(
            argv, env=environment, cwd=scratch, stdin=subprocess.PIPE, start_new_session=True
        )
        self._reader = threading.Thread(target=self._gather, daemon=True)
        self._reader.start()
        self.returncode: int | None = None
        self.stderr = "what acrn-dm logged"

    @property
    def stdout(self) -> str:
        return self._output.decode(errors="replace")

    def write(self, data: bytes) -> None:
        os.write(self._master, data)

    def signal(self, number: int) -> None:
        self.returncode = -number

    def wait(self, timeout: float = 60.0) -> Result:
        raise NotImplementedError

    def say(self, text: str) -> None:
        """What a guest says that nobody has asked."""
        self._output += text.encode()

    def close(self) -> None:
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()
        os.close(self._slave)
        self._reader.join()
        os.close(self._master)

    def _gather(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                self._output += data
        except OSError:  # the other end has gone
            pass
