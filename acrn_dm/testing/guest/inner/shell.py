"""A guest that does what it is told over its virtio console: the other end of shell.sh."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.inner.initramfs import GUEST_MODULES, SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm

PROGRAM = (sys.executable, "-m", "acrn_dm")
BOOT_LIMIT = 120.0
SERIAL_PORT = 5555  # in the outer VM
# Keeps what the kernel says there: a guest that crashes reboots, and that is all that is left of it.
LISTENER = """
import socket, sys, time
while True:
    try:
        port = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
with open(sys.argv[2], "ab", buffering=0) as log:
    while data := port.recv(65536):
        log.write(data)
"""


class GuestShell:
    """acrn-dm in the outer VM, started as *program*, with *arguments* added; its standard input and output are the
    port."""

    def __init__(
        self,
        vm: OuterVm,
        kernel: Kernel,
        scratch: Path,
        arguments: Sequence[str],
        *,
        modules: Sequence[str] = (),
        programs: Sequence[str] = (),
        append: str = "",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        initramfs = guest_initramfs(
            kernel, init=guest_init(SHELL), modules=[*GUEST_MODULES, *modules], programs=programs
        )
        argv = [
            *(
                *program,
                "--hypervisor",
                "kvm",
                "--logger_setting",
                "console,level=4",
                "-s",
                "0:0,hostbridge",
                "-s",
                "1:0,lpc",
            ),
            *("-l", f"com1,tcp:{SERIAL_PORT}"),
            *("-s", "2,virtio-console,stdio:shell", "-k", str(kernel.image), "-r", str(initramfs)),
            *("-B", f"{COMMAND_LINE} {append}".strip(), *arguments, "lab"),
        ]
        self._serial = scratch / "serial"
        self._serial.unlink(missing_ok=True)
        self.process: GuestProcess = vm.spawn(argv, cwd=Path.cwd())
        vm.spawn([sys.executable, "-c", LISTENER, str(SERIAL_PORT), self._serial])
        self._number = 0
        self._read = 0  # characters of the output that belong to earlier commands
        self._answer(BOOT_LIMIT)

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command line in the guest; its output. Raises AssertionError if it fails."""
        self._number += 1
        self.process.write(command.encode() + b"\n")
        output, status = self._answer(timeout)
        assert status == 0, f"{command!r} in the guest ended with {status}: {output[-2000:]}"
        return output

    def reboot(self) -> None:
        """Reset the machine and wait until the guest is there again."""
        self._number = 0
        self.process.write(b"reboot -f\n")
        self._answer(BOOT_LIMIT)

    def power_off(self, timeout: float = 30.0) -> int:
        """End the guest; acrn-dm's exit status."""
        self.process.write(b"poweroff -f\n")
        return self.process.wait(timeout).rc

    def _answer(self, timeout: float) -> tuple[str, int]:
        end = re.compile(rf"^END {self._number} (\d+)\r?\n", re.MULTILINE)
        deadline = time.monotonic() + timeout
        while not (found := end.search(text := self.process.stdout, self._read)):
            assert time.monotonic() < deadline, (
                f"no answer from the guest: {text[self._read :][-2000:]}{self._last_words()}"
            )
            assert self.process.returncode is None, f"acrn-dm has ended: {self.process.stderr[-2000:]}"
            time.sleep(0.02)
        output = text[self._read : found.start()]
        self._read = found.end()
        return output.strip(), int(found[1])

    def _last_words(self) -> str:
        serial = self._serial.read_text(errors="replace") if self._serial.exists() else ""
        return f"\nits kernel: ...{serial[-4000:]}\nacrn-dm: ...{self.process.stderr[-2000:]}"
