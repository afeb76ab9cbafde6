"""Process 1 of the outer VM: runs commands for the host, over a virtio-serial port. Talks to channel.py.

One JSON object a line, both ways; bytes as base64. From the host:
    {"op": "start", "id": N, "argv": [...], "cwd": path or null, "env": {...} added to the agent's own,
     "stem": modules to import ahead: argv, which is python -m NAME ..., is forked by stem.py that has them; or none}
    {"op": "input", "id": N, "data": base64}      {"op": "close", "id": N}      {"op": "signal", "id": N, "number": N}
To the host:
    {"ready": true}      {"id": N, "fd": 1 or 2, "data": base64}      {"id": N, "exit": status as in subprocess}
    {"id": N, "error": text}  when it could not be started
What a process's children write after its own end is lost. When the host goes away the machine powers off.
It imports little, for every module is read through emulated 9p.
"""

from __future__ import annotations

import binascii
import json
import os
import select
import signal
import sys
from functools import partial  # json has it loaded already

TYPE_CHECKING = False  # as type checkers know it; importing typing would cost a tenth of a second in here
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket as Socket
    from typing import Any

    Started = tuple[int, str]  # process, or why there is none

CHUNK = 65536
EARLY = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC")
STEM, STEM_FD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stem.py"), 3
KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_IRQCHIP = 0xAE01, 0xAE41, 0xAE60


class Child:
    """One process and our ends of its pipes."""

    def __init__(self, number: int, pid: int, pipes: list[int]) -> None:
        self.number = number
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self.pending = bytearray()
        self.closing = False


class Agent:
    """The agent: takes commands from *port*, and keeps what runs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.poll = select.poll()
        self.poll.register(port, select.POLLIN)
        self.incoming = b""
        self.children: dict[int, Child] = {}  # by the host's number
        self.handlers: dict[int, Callable[[], object]] = {}  # descriptor -> called when it is ready
        self.stems: dict[str, Socket] = {}  # by what makes them differ
        self.wake = self._wake_on_child_exit()

    def _wake_on_child_exit(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.poll.register(reader, select.POLLIN)
        return reader

    def serve(self) -> None:
        self.send(ready=True)
        while True:
            for fd, event in self.poll.poll():
                if fd == self.port:
                    if event & select.POLLHUP or not self.receive():
                        return
                elif fd == self.wake:
                    self.reap()
                elif fd in self.handlers:
                    self.handlers[fd]()

    def send(self, **message: object) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        while line:
            line = line[os.write(self.port, line) :]

    def receive(self) -> bool:
        data = os.read(self.port, CHUNK)
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return bool(data)

    def obey(self, order: dict[str, Any]) -> None:
        number = order["id"]
        if order["op"] == "start":
            self.start(number, order["argv"], order["cwd"], order["env"], order["stem"])
            return
        child = self.children.get(number)
        if child is None:
            return  # it ended while the order was on its way
        if order["op"] == "signal":
            os.killpg(child.pid, order["number"])
        elif order["op"] == "input" and not child.closing:
            child.pending += binascii.a2b_base64(order["data"])
            self.feed(child)
        elif order["op"] == "close":
            child.closing = True
            self.feed(child)

    def start(
        self, number: int, argv: list[str], cwd: str | None, environment: dict[str, str], stem: list[str]
    ) -> None:
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        fork = partial(self.fork_stem, stem) if stem else self.execute
        pid, error = fork(argv, cwd, {**os.environ, **environment}, theirs)
        for fd in theirs:
            os.close(fd)
        if error:
            for fd in ours:
                os.close(fd)
            self.send(id=number, error=error)
            return
        child = self.children[number] = Child(number, pid, ours)
        for fd in ours:
            os.set_blocking(fd, False)
        for fd, name in ((child.stdout, 1), (child.stderr, 2)):
            self.watch(fd, select.POLLIN, partial(self.forward, number, fd, name))

    def execute(self, argv: list[str], cwd: str | None, environment: dict[str, str], files: list[int]) -> Started:
        failure, failed = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self.become(argv, cwd, environment, files, failed)
        os.close(failed)
        error = os.read(failure, CHUNK)
        os.close(failure)
        return pid, error.decode()

    def fork_stem(
        self, modules: list[str], argv: list[str], cwd: str | None, environment: dict[str, str], files: list[int]
    ) -> Started:
        """Have it forked by the stem that has these modules, and all that Python and its loader read when they start
        and never again.
        """
        import socket  # noqa: PLC0415

        early = sorted((name, value) for name, value in environment.items() if name.startswith(EARLY))
        key = json.dumps([argv[0], cwd, early, modules])
        stem = self.stems.get(key)
        if stem is None:
            stem, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                error = self.start_stem([argv[0], STEM, str(STEM_FD), *modules], cwd, environment, theirs)
            if error:
                return 0, error
            self.stems[key] = stem
        order = {"argv": argv[2:], "cwd": cwd, "env": environment}
        try:
            socket.send_fds(stem, [json.dumps(order).encode()], files)
            answer = json.loads(stem.recv(CHUNK))
        except (OSError, ValueError):  # of no answer, too
            del self.stems[key]
            return 0, "its stem has ended, see the console"
        return answer.get("pid", 0), answer.get("error", "")

    def start_stem(self, argv: list[str], cwd: str | None, environment: dict[str, str], control: Socket) -> str:
        """Its files are pipes, as those of what it forks, so that Python buffers them alike. Why it could not be."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        _, error = self.execute(argv, cwd, environment, [reader, writer, sys.stderr.fileno(), control.fileno()])
        os.close(reader)
        os.close(writer)
        return error

    def become(
        self, argv: list[str], cwd: str | None, environment: dict[str, str], files: list[int], failed: int
    ) -> None:
        """In the new process: never returns."""
        try:
            os.setsid()
            for number, fd in enumerate(files):
                os.dup2(fd, number)
            os.chdir(cwd or "/")
            for name in (signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(name, signal.SIG_DFL)
            os.execvpe(argv[0], argv, environment)
        except BaseException as error:
            os.write(failed, (str(error) or repr(error)).encode())
        os._exit(127)

    def watch(self, fd: int, events: int, handler: Callable[[], object]) -> None:
        self.poll.register(fd, events)
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def forward(self, number: int, fd: int, name: int) -> bool:
        """Pass on what a process wrote; true while there may be more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self.send(id=number, fd=name, data=binascii.b2a_base64(data, newline=False).decode())
        else:
            self.unwatch(fd)
        return bool(data)

    def feed(self, child: Child) -> None:
        try:
            while child.pending:
                del child.pending[: os.write(child.stdin, child.pending[:CHUNK])]
        except BlockingIOError:
            self.watch(child.stdin, select.POLLOUT, partial(self.feed, child))
            return
        except BrokenPipeError:
            child.pending.clear()
        self.unwatch(child.stdin)
        if child.closing and child.stdin >= 0:
            os.close(child.stdin)
            child.stdin = -1

    def reap(self) -> None:
        os.read(self.wake, CHUNK)
        by_pid = {child.pid: child for child in self.children.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:  # others are orphans that came to us as process 1
                self.finish(by_pid[pid], os.waitstatus_to_exitcode(status))

    def finish(self, child: Child, status: int) -> None:
        del self.children[child.number]
        for fd, name in ((child.stdout, 1), (child.stderr, 2)):
            while fd in self.handlers and self.forward(child.number, fd, name):
                pass
            self.unwatch(fd)
            os.close(fd)
        self.unwatch(child.stdin)
        if child.stdin >= 0:
            os.close(child.stdin)
        self.send(id=child.number, exit=status)


def open_port(name: str) -> int:
    """The virtio-serial port of that name: /dev/vportXpY, known to sysfs by name."""
    directory = "/sys/class/virtio-ports"
    for port in os.listdir(directory):
        with open(f"{directory}/{port}/name") as file:
            if file.read().strip() == name:
                return os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(f"no virtio-serial port {name}")


def hold_kvm() -> None:
    """Keep one virtual machine for good, with a vCPU that never runs.

    The kernel patches its scheduler when the first VM is made and when the last one is gone (preempt_notifier_key in
    __schedule), and KVM's paths for a local APIC that is switched off (apic_sw_disabled). QEMU before 8.1 may go on
    executing the breakpoint that stands there meanwhile: it locks a page only after having translated it, so that what
    another processor writes in between is missed (fixed by "accel/tcg: Always lock pages before translation"). Then
    all processors loop in exc_int3 for ever. With this machine there, no other is the first or the last.
    """
    import fcntl  # noqa: PLC0415

    try:
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        fcntl.ioctl(machine, KVM_CREATE_IRQCHIP, 0)
        fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
    except OSError as error:
        print(f"lab: no virtual machine to keep: {error}", file=sys.stderr)


def main() -> None:
    os.environ.update(
        PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8", TERM="dumb"
    )
    hold_kvm()
    try:
        Agent(open_port(sys.argv[1])).serve()
    finally:
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("o")  # power off, now: there is nothing to save
        signal.pause()


if __name__ == "__main__":
    main()
