"""A guest of QEMU's that does what it is told, and the process that serves it its devices."""

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.host import Host
from acrn_dm.testing.guest.inner.dialogue import Dialogue
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.process import Process
from acrn_dm.testing.guest.qemu import ending_with_us
from acrn_dm.testing.guest.served.machine import command, vfio_user

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli", "vfio-user")
STOP_S = 30.0
_LOOK_S = 0.02
_SHOWN = 2000


class ServedShell:
    """QEMU, started by the words *qemu* on this host, with *devices* that a process of acrn-dm serves.

    What the guest's kernel says goes to the file serial in *scratch*. Entering is booting: raises HarnessError, with
    what was said last.
    """

    def __init__(
        self,
        kernel: Kernel,
        scratch: Path,
        devices: Sequence[str],
        *,
        initramfs: Path,
        qemu: Sequence[str],
        append: str = "",
        program: Sequence[str] = PROGRAM,
        env: Mapping[str, str] | None = None,
        timeout: float,
    ) -> None:
        self._serial = scratch / "serial"
        self._resources = contextlib.ExitStack()
        self._server: Process | None = None
        try:
            # A socket's path may have a hundred characters, and the scratch folder's alone may.
            sockets = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="acrn-dm-")))
            if devices:
                self._server = self._serve([*program, *devices], sockets, len(devices), env or {}, timeout)
            words = command(kernel.quick_image, initramfs, self._serial, append=append, qemu=qemu, board="q35")
            words += [word for n in range(len(devices)) for word in vfio_user(str(n), sockets)]
            self.process = self._started(words, {})
            self._dialogue = Dialogue(self.process, self._last_words, "QEMU")
            self._dialogue.wait_up(timeout)
        except BaseException:
            self.kill()
            raise

    def run(self, command: str, timeout: float = 60.0, shown: str = "") -> str:
        """As ``GuestShell.run``."""
        return self._dialogue.run(command, timeout, shown)

    def reboot(self, timeout: float) -> None:
        """Reset the machine and wait until the guest is there again."""
        self._dialogue.reboot(timeout)

    def power_off(self) -> int:
        """End the guest, and then the process of its devices; that one's exit status. Raises HarnessError for QEMU's.

        When all is over, whether well or not, nothing is left of both.
        """
        try:
            self.process.write(b"poweroff -f\n")
            if status := self.process.wait(STOP_S).rc:
                raise HarnessError(f"QEMU ended with {status}: {self.process.stderr[-_SHOWN:]}")
            if self._server is None:
                return 0
            self._server.signal(signal.SIGTERM)
            return self._server.wait(STOP_S).rc
        finally:
            self.kill()

    def kill(self) -> None:
        """End both at once. Idempotent."""
        self._resources.close()

    def console(self) -> str:
        """What the guest's kernel has printed on its serial console."""
        return self._serial.read_text(errors="replace").replace("\r\n", "\n") if self._serial.exists() else ""

    def log(self) -> str:
        """What acrn-dm has logged."""
        return self._server.stderr if self._server is not None else ""

    def _started(self, words: Sequence[str], env: Mapping[str, str]) -> Process:
        process = Host().spawn(ending_with_us(words), env=env)
        self._resources.callback(_end, process)
        return process

    def _serve(
        self, words: Sequence[str], sockets: Path, count: int, env: Mapping[str, str], timeout: float
    ) -> Process:
        """The process, when it serves. CPUs are emulated, so they are told of each write to what they may execute."""
        paths = [sockets / f"{number}.sock" for number in range(count)]
        process = self._started([*words, "--tell-writes", *(f"--socket-path={path}" for path in paths)], env)
        deadline = time.monotonic() + timeout
        while not all(path.exists() for path in paths):
            if process.returncode is not None:
                raise HarnessError(f"acrn-dm ended with {process.returncode}: {process.stderr[-_SHOWN:]}")
            if time.monotonic() > deadline:
                raise HarnessTimeout(f"acrn-dm serves no device within {timeout:g} s: {process.stderr[-_SHOWN:]}")
            time.sleep(_LOOK_S)
        return process

    def _last_words(self) -> str:
        kernel, qemu = self.console()[-2 * _SHOWN :] or "(nothing)", self.process.stderr[-_SHOWN:] or "(nothing)"
        said = self.log()[-_SHOWN:] or "(nothing)"
        return f"\nits kernel said last: {kernel}\nQEMU said last: {qemu}\nacrn-dm said last: {said}"


def _end(process: Process) -> None:
    with contextlib.suppress(HarnessError):
        process.signal(signal.SIGKILL)
        process.wait(5.0)
