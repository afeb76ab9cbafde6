"""The outer VM: an emulated AMD machine with nested virtualization that runs commands on this host's file tree."""

import base64
import contextlib
import itertools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from . import images, kernel, qemu
from .errors import LabError, LabTimeout
from .paths import LAB
from .postmortem import examine

# Seconds for each attempt; an idle machine takes about six. About one boot in twenty hangs early in software emulation,
# probably by what agent.hold_kvm tells of: the first limit is for those, the second for slow hosts.
BOOT_LIMITS = (45.0, 120.0)
_INPUT_CHUNK = 49152

# QEMU's emulated SVM does not intercept XSETBV, so the inner guest must not see XSAVE, nor anything that needs it.
_NO_XSAVE = "-xsave,-xsaveopt,-xsavec,-xsaves,-xgetbv1,-avx,-avx2,-fma,-f16c"
# No nested paging: KVM keeps shadow page tables. With it, QEMU's page walk now and then, behind a world switch,
# finds nothing where something is: under network traffic in every second run, with 7.2 and with 10.0.2. The guest then
# ends in a triple fault (10.0.2's log of exceptions: its IDT is "not present" in three reads in a row), or the outer
# kernel takes page faults without end on the stack of svm_vcpu_enter_exit.
# Without an invariant TSC the kernel's clock is the emulated PM timer, and each read of it an exit.
CPU = f"EPYC,+svm,-npt,+invtsc,{_NO_XSAVE}"
COMMAND_LINE = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off no_timer_check random.trust_cpu=on"

Command = str | Sequence[str | Path]


@attrs.frozen(kw_only=True)
class Result:
    """How a command in the outer VM ended."""

    rc: int  # exit status, or minus the signal's number
    stdout: str
    stderr: str
    seconds: float


class GuestProcess:
    """A process in the outer VM. Its output gathers here; ``on_output`` gets it too as it comes, in another thread."""

    def __init__(self, vm: "OuterVm", number: int, on_output: Callable[[bytes], None] | None) -> None:
        self._vm = vm
        self._number = number
        self._on_output = on_output
        self._started = time.monotonic()
        self._output = {1: bytearray(), 2: bytearray()}
        self._changed = threading.Condition()
        self._rc: int | None = None
        self._error: str | None = None
        self._seconds = 0.0

    @property
    def stdout(self) -> str:
        return self._output[1].decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self._output[2].decode(errors="replace")

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._rc

    def wait(self, timeout: float = 60.0) -> Result:
        """Its end; past ``timeout`` seconds it and what it started (its session) are killed and LabTimeout raised."""
        if not self._ended_within(timeout):
            self.signal(9)
            self._ended_within(5.0)
            raise LabTimeout(
                f"no end within {timeout:g} s; stdout: ...{self.stdout[-2000:]!r}, stderr: ...{self.stderr[-2000:]!r}"
            )
        if self._rc is None:
            raise LabError(self._error or "the outer VM is gone")
        return Result(rc=self._rc, stdout=self.stdout, stderr=self.stderr, seconds=self._seconds)

    def wait_for(self, text: str, timeout: float = 60.0) -> str:
        """Its output once ``text`` stands in stdout. LabTimeout past ``timeout``, LabError if it ends without."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.stdout or self._over, timeout)
            if text in self.stdout:
                return self.stdout
        kind = LabError if self._over else LabTimeout
        raise kind(f"no {text!r} in the output; stdout: {self.stdout[-2000:]!r}, stderr: {self.stderr[-2000:]!r}")

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        for start in range(0, len(data), _INPUT_CHUNK):
            chunk = base64.b64encode(data[start : start + _INPUT_CHUNK]).decode()
            self._vm._send({"op": "input", "id": self._number, "data": chunk})

    def close_stdin(self) -> None:
        self._vm._send({"op": "close", "id": self._number})

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        self._vm._send({"op": "signal", "id": self._number, "number": number})

    @property
    def _over(self) -> bool:
        return self._rc is not None or self._error is not None

    def _ended_within(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._over, timeout)

    def _take(self, message: Mapping[str, Any]) -> None:
        """One message of the agent about this process."""
        data = base64.b64decode(message.get("data", ""))
        with self._changed:
            if data:
                self._output[message["fd"]] += data
            elif "exit" in message:
                self._rc = message["exit"]
            else:
                self._error = message["error"]
            self._seconds = time.monotonic() - self._started
            self._changed.notify_all()
        if data and self._on_output is not None:
            self._on_output(data)


class OuterVm:
    """A context manager; entering boots the VM. Many threads may run commands in it at once.

    Inside, every path is as on this host; what is written stays in the VM's memory, except below build/lab, which is
    shared and writable, uncached, at its own path (and as /lab-out). What the host changes elsewhere after the boot
    may or may not be seen.
    """

    def __init__(self, *, memory_mib: int = 4096, cpus: int = 2, name: str = "outer") -> None:
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.name = name
        self.boot_seconds = 0.0
        self.early_hangs = 0  # boots given up on; 1 at most, or the entry failed
        self.restarts = 0  # times it hung while it was in use
        self._resources = contextlib.ExitStack()
        self._channel: socket.socket | None = None
        self._monitor: socket.socket | None = None
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._processes: dict[int, GuestProcess] = {}
        self._ready = threading.Event()
        self._dead: str | None = None

    def __enter__(self) -> Self:
        guest_kernel = kernel.debian_kernel()
        initramfs = images.outer_initramfs(guest_kernel)
        while True:
            try:
                self._boot(guest_kernel.quick_image, initramfs)
                return self
            except LabTimeout:
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
        except LabError:
            return False

    def restart(self) -> None:
        """Boot it anew; counted in the test report. What its processors were at is among the console logs."""
        self.restarts += 1
        self._examine()
        self.close()
        self.early_hangs = 0
        self.__enter__()

    def close(self) -> None:
        """End the VM at once; processes still running in it end with LabError in their ``wait``."""
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
        """Run a program (sequence) or a shell command line (string) to its end. LabTimeout past ``timeout`` seconds."""
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
    ) -> GuestProcess:
        """Start a program (sequence) or a shell command line (string) in its own session, and return at once."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(part) for part in command]
        number = next(self._numbers)
        process = self._processes[number] = GuestProcess(self, number, on_output)
        self._send(
            {"op": "start", "id": number, "argv": argv, "cwd": str(cwd) if cwd else None, "env": dict(env or {})}
        )
        return process

    def _boot(self, image: Path, initramfs: Path) -> None:
        started = time.monotonic()
        self._ready.clear()
        self._dead = None
        self._channel, theirs = socket.socketpair()
        self._resources.callback(self._channel.close)
        self._monitor, their_monitor = socket.socketpair()
        self._resources.callback(self._monitor.close)
        attempt = self.name if not self.early_hangs else f"{self.name}-retry"
        with theirs, their_monitor:
            fds = theirs.fileno(), their_monitor.fileno()
            process = self._resources.enter_context(
                qemu.running(
                    self._arguments(image, initramfs, *fds, qemu.console_log(attempt)),
                    log=qemu.console_log(f"{attempt}-qemu"),
                    pass_fds=fds,
                )
            )
        reader = threading.Thread(target=self._receive, args=(self._channel,), name="lab-agent", daemon=True)
        reader.start()
        self._resources.callback(self._stop_reader, process, reader)
        limit = BOOT_LIMITS[self.early_hangs]
        if not self._ready.wait(limit):
            self._examine()
            self.close()
            raise LabTimeout(f"the outer VM did not come up within {limit:g} s; console:\n{self.console()}")
        if self._dead:
            raise LabError(f"the outer VM ended while booting; console:\n{self.console()}")
        self.boot_seconds = time.monotonic() - started

    def console(self) -> str:
        """The last lines of the outer VM's serial console and of what QEMU said, for messages."""
        return "\n".join(qemu.console_tails(self.name).values())

    def _examine(self) -> None:
        if self._monitor is not None:
            qemu.console_log(f"{self.name}-hang-{self.early_hangs + self.restarts}").write_text(examine(self._monitor))

    def _arguments(self, image: Path, initramfs: Path, channel: int, monitor: int, console: Path) -> list[str]:
        share = "security_model=none,multidevs=remap"
        return [
            *("-machine", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi", "-cpu", CPU),
            *("-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-kernel", str(image), "-initrd", str(initramfs), "-append", COMMAND_LINE),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"file,id=serial,path={console}", "-serial", "chardev:serial"),
            *("-virtfs", f"local,path=/,mount_tag=host,readonly=on,{share}"),
            *("-virtfs", f"local,path={LAB},mount_tag=lab,{share}"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={channel}"),
            *("-device", f"virtserialport,chardev=agent,name={images.AGENT_PORT}"),
        ]

    def _send(self, order: Mapping[str, object]) -> None:
        if self._channel is None or self._dead:
            raise LabError(self._dead or "the outer VM is not up")
        try:
            with self._sending:
                self._channel.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            raise LabError(f"the outer VM is gone: {error}") from error

    def _receive(self, channel: socket.socket) -> None:
        """The reader thread: hands each message to the process it is about, until QEMU closes its end."""
        with contextlib.suppress(OSError), channel.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "id" in message:
                    self._processes[message["id"]]._take(message)
                else:
                    self._ready.set()
        self._dead = "the outer VM is gone"
        self._ready.set()
        for process in list(self._processes.values()):
            if not process._over:
                process._take({"error": self._dead})

    @staticmethod
    def _stop_reader(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
        process.kill()  # which ends the channel, and so the thread
        reader.join()
