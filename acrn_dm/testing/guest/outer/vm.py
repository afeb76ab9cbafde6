"""The outer VM: an emulated AMD machine with nested virtualization that runs commands on this host's file tree."""

import contextlib
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from acrn_dm.testing.guest import qemu
from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.consoles import console_log, console_tails
from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.channel import Channel, GuestProcess
from acrn_dm.testing.guest.outer.initramfs import AGENT_PORT, outer_initramfs
from acrn_dm.testing.guest.outer.postmortem import examine
from acrn_dm.testing.guest.places import home
from acrn_dm.testing.guest.process import Command, Result

# Seconds for each attempt; an idle machine takes about six. About one boot in twenty hangs early in software emulation,
# probably by what agent.hold_kvm tells of: the first limit is for those, the second for slow hosts.
BOOT_LIMITS = (45.0, 120.0)

# QEMU's emulated SVM does not intercept XSETBV, so the inner guest must not see XSAVE, nor anything that needs it.
_NO_XSAVE = "-xsave,-xsaveopt,-xsavec,-xsaves,-xgetbv1,-avx,-avx2,-fma,-f16c"
# No nested paging: KVM keeps shadow page tables. With it, QEMU's page walk now and then, behind a world switch,
# finds nothing where something is: under network traffic in every second run, with 7.2 and with 10.0.2. The guest then
# ends in a triple fault (10.0.2's log of exceptions: its IDT is "not present" in three reads in a row), or the outer
# kernel takes page faults without end on the stack of svm_vcpu_enter_exit.
# No SMAP and SMEP: each of the kernel's copies from and to a process would end a block of translated code twice.
# Without an invariant TSC the kernel's clock is the emulated PM timer, and each read of it an exit.
CPU = f"EPYC,+svm,-npt,-smap,-smep,+invtsc,{_NO_XSAVE}"
# Python in there reads the byte code that this one keeps: to compile a device model takes it ten seconds.
BYTE_CODE = {"PYTHONPYCACHEPREFIX": sys.pycache_prefix} if sys.pycache_prefix else {}
# Of the kernel's security modules the one that device models confine themselves with, and no other.
KERNEL_COMMAND_LINE = f"{COMMAND_LINE} random.trust_cpu=on lsm=landlock"


class OuterVm:
    """A context manager; entering boots the VM. Many threads may run commands in it at once.

    Inside, every path is as on this host; what is written stays in the VM's memory, except in the guests' home, which
    is shared and writable, uncached, at its own path (and as /lab-out), as are the folders *shares*. What the host
    changes elsewhere after the boot may or may not be seen.
    """

    def __init__(
        self, *, memory_mib: int = 4096, cpus: int = 2, name: str = "outer", shares: Sequence[Path] = ()
    ) -> None:
        self.shares = tuple(path.resolve() for path in shares)
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.name = name
        self.boot_seconds = 0.0
        self.early_hangs = 0  # boots given up on; 1 at most, or the entry failed
        self.restarts = 0  # times it hung while it was in use
        self._resources = contextlib.ExitStack()
        self._channel: Channel | None = None
        self._monitor: socket.socket | None = None

    def __enter__(self) -> Self:
        kernel = debian_kernel()
        initramfs = outer_initramfs(kernel)
        while True:
            try:
                self._boot(kernel.quick_image, initramfs)
                self._mount_shares()
                return self
            except HarnessTimeout:
                self.early_hangs += 1
                if self.early_hangs == len(BOOT_LIMITS):
                    raise
            except BaseException:
                self.close()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def alive(self, patience: float = 30.0) -> bool:
        """Whether it still runs commands. QEMU's emulation hangs now and then: see ``agent.hold_kvm``."""
        try:
            return self.run(["true"], timeout=patience).rc == 0
        except HarnessError:
            return False

    def restart(self) -> None:
        """Boot it anew; counted in the test report. What its processors were at is among the console logs."""
        self.restarts += 1
        self._examine()
        self.close()
        self.early_hangs = 0
        self.__enter__()

    def close(self) -> None:
        """End the VM at once; processes still running in it end with HarnessError in their ``wait``."""
        self._resources.close()

    def run(
        self,
        command: Command,
        *,
        timeout: float = 60.0,
        stdin: bytes = b"",
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a program (sequence) or a shell command line (string) to its end; HarnessTimeout past ``timeout`` s."""
        process = self.spawn(command, cwd=cwd, env=env, on_output=on_output)
        if stdin:
            process.write(stdin)
        process.close_stdin()
        return process.wait(timeout)

    def spawn(
        self,
        command: Command,
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        stem: Sequence[str] = (),
    ) -> GuestProcess:
        """Start a program (sequence) or a shell command line (string) in its own session, and return at once.

        *stem*: modules. The command, ``python -m NAME ...``, is then forked by a process that has imported them, which
        the first such command makes: see ``stem``.
        """
        if self._channel is None:
            raise HarnessError("the outer VM is not up")
        environment = {**BYTE_CODE, **(env or {})}
        return self._channel.spawn(command, cwd=cwd, env=environment, on_output=on_output, stem=stem)

    def _boot(self, image: Path, initramfs: Path) -> None:
        started = time.monotonic()
        attempt = self.name if not self.early_hangs else f"{self.name}-retry"
        port, their_port = self._socket_pair()
        self._monitor, their_monitor = self._socket_pair()
        with their_port, their_monitor:
            fds = their_port.fileno(), their_monitor.fileno()
            process = self._resources.enter_context(
                qemu.running(
                    self._arguments(image, initramfs, *fds, console_log(attempt)),
                    log=console_log(f"{attempt}-qemu"),
                    pass_fds=fds,
                )
            )
        self._channel = Channel(port)
        self._resources.callback(self._end, process, self._channel)
        limit = BOOT_LIMITS[self.early_hangs]
        if not self._channel.wait_ready(limit):
            self._examine()
            self.close()
            raise HarnessTimeout(f"the outer VM did not come up within {limit:g} s; console:\n{self.console()}")
        if self._channel.dead:
            raise HarnessError(f"the outer VM ended while booting; console:\n{self.console()}")
        self.boot_seconds = time.monotonic() - started

    def _mount_shares(self) -> None:
        options = "trans=virtio,version=9p2000.L,msize=524288,cache=none"
        for number, path in enumerate(self.shares):
            make = (
                f"mkdir -p {shlex.quote(str(path))} && mount -t 9p -o {options} share{number} {shlex.quote(str(path))}"
            )
            if (done := self.run(make)).rc:
                raise HarnessError(f"{path} can't be shared with the outer VM: {done.stderr}")

    def _socket_pair(self) -> tuple[socket.socket, socket.socket]:
        """Our end, closed with the VM, and QEMU's."""
        ours, theirs = socket.socketpair()
        self._resources.callback(ours.close)
        return ours, theirs

    def console(self) -> str:
        """The last lines of the outer VM's serial console and of what QEMU said, for messages."""
        return "\n".join(console_tails(self.name).values())

    def _examine(self) -> None:
        if self._monitor is not None:
            console_log(f"{self.name}-hang-{self.early_hangs + self.restarts}").write_text(examine(self._monitor))

    def _arguments(self, image: Path, initramfs: Path, channel: int, monitor: int, console: Path) -> list[str]:
        return [
            *("-machine", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi", "-cpu", CPU),
            *("-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-kernel", str(image), "-initrd", str(initramfs), "-append", KERNEL_COMMAND_LINE),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"file,id=serial,path={console}", "-serial", "chardev:serial"),
            *_share(Path("/"), "host", "readonly=on,"),
            *_share(home(), "lab"),
            *(word for number, path in enumerate(self.shares) for word in _share(path, f"share{number}")),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={channel}"),
            *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        ]

    @staticmethod
    def _end(process: subprocess.Popen[bytes], channel: Channel) -> None:
        process.kill()  # which ends the channel
        channel.join()


def _share(path: Path, tag: str, how: str = "") -> tuple[str, str]:
    """QEMU's option for a folder of this host, to be mounted by that tag. A comma in a value is written twice."""
    folder = str(path).replace(",", ",,")
    return "-virtfs", f"local,path={folder},mount_tag={tag},{how}security_model=none,multidevs=remap"
