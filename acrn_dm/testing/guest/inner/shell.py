"""A guest that does what it is told over its virtio console: the other end of shell.sh."""

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.images.initramfs import busybox
from acrn_dm.testing.guest.inner.dialogue import Dialogue
from acrn_dm.testing.guest.inner.initramfs import GUEST_MODULES, SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.process import Place, Process

PROGRAM = (sys.executable, "-m", "acrn_dm")
BOOT_LIMIT = 120.0
SERIAL_PORT = 5555  # where acrn-dm runs
CONSOLE_SLOT = 2


class GuestShell:
    """acrn-dm at *place*, started as *program* with *arguments* added; its standard input and output are the port.

    What the guest's kernel says goes to the file serial in *scratch*, which *place* sees at the same path: it is all
    that is left of a guest that crashes. Entering is booting: raises HarnessError, with the console's end.
    """

    def __init__(
        self,
        place: Place,
        kernel: Kernel,
        scratch: Path,
        arguments: Sequence[str],
        *,
        initramfs: Path | None = None,
        modules: Sequence[str] = (),
        programs: Sequence[str] = (),
        append: str = "",
        program: Sequence[str] = PROGRAM,
        env: Mapping[str, str] | None = None,
        port: int = SERIAL_PORT,
        timeout: float = BOOT_LIMIT,
    ) -> None:
        initramfs = initramfs or guest_initramfs(
            kernel, init=guest_init(SHELL), modules=[*GUEST_MODULES, *modules], programs=programs
        )
        argv = [
            *(*program, "--hypervisor", "kvm", "--logger_setting", "console,level=4", "--manager-directory", "none"),
            *("-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", f"com1,tcp:{port}"),
            *("-s", f"{CONSOLE_SLOT},virtio-console,stdio:shell", "-k", str(kernel.quick_image), "-r", str(initramfs)),
            *("-B", f"{COMMAND_LINE} {append}".strip(), *arguments, "guest"),
        ]
        self._serial = scratch / "serial"
        self._serial.unlink(missing_ok=True)
        self.process = place.spawn(argv, cwd=Path.cwd(), env=env)
        self._listener = place.spawn(_listen(port, self._serial))
        self._dialogue = Dialogue(self.process, self._last_words)
        try:
            self._dialogue.wait_up(timeout)
        except BaseException:
            self.kill()
            raise

    def run(self, command: str, timeout: float = 60.0, shown: str = "") -> str:
        """Run a shell command line in the guest, called *shown* in messages; its output. Raises CommandFailed,
        HarnessTimeout, HarnessError.
        """
        return self._dialogue.run(command, timeout, shown)

    def reboot(self, timeout: float = BOOT_LIMIT) -> None:
        """Reset the machine and wait until the guest is there again."""
        self._dialogue.reboot(timeout)

    def power_off(self, timeout: float = 30.0) -> int:
        """End the guest; acrn-dm's exit status."""
        self.process.write(b"poweroff -f\n")
        try:
            return self.process.wait(timeout).rc
        finally:
            _end(self._listener)

    def kill(self) -> None:
        """End acrn-dm at once."""
        _end(self.process)
        _end(self._listener)

    def console(self) -> str:
        """What the guest's kernel has printed on its serial console."""
        return self._serial.read_text(errors="replace").replace("\r\n", "\n") if self._serial.exists() else ""

    def log(self) -> str:
        """What acrn-dm has logged."""
        return self.process.stderr

    def _last_words(self) -> str:
        said = self.console()[-4000:] or "(nothing)"
        return f"\nits kernel said last: {said}\nacrn-dm said last: {self.process.stderr[-2000:] or '(nothing)'}"


def _end(process: Process) -> None:
    with contextlib.suppress(HarnessError):  # the outer VM may be gone, and it with that
        process.signal(9)
        process.wait(5.0)


def _listen(port: int, log: Path) -> str:
    """A shell command line that appends what comes from a TCP port of its own host to *log*."""
    netcat = f"{shlex.quote(str(busybox()))} nc 127.0.0.1 {port}"
    return f"until {netcat} >> {shlex.quote(str(log))} 2> /dev/null; do sleep 0.1; done"
