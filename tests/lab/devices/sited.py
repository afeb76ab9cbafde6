"""acrn-dm with one more folder of installed plugins: ``python -m tests.lab.devices.sited FOLDER ARGUMENTS...``.

FOLDER.log gets a line ``NAME PID`` for each process of a device.

Those processes are forks of one that has all modules, made before there is a thread: to start Python below an emulation
takes as long as a kernel's boot. Nothing else is otherwise; as executed ones they are seen in ``tests.lab.machines``.
"""

import json
import os
import socket
import subprocess
import sys
import types
from collections.abc import Sequence

from acrn_dm.backends.broker import START, client, process
from acrn_dm.backends.helper import child
from acrn_dm.backends.helper.child import Child
from acrn_dm.cli.app import main
from acrn_dm.export import helper


class Forked:
    """A process as ``subprocess.Popen`` has it, as far as ``Child`` asks, without the start of a program."""

    def __init__(self, argv: Sequence[str], *, stdin: int, pass_fds: Sequence[int], **_: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            os.dup2(stdin, 0)
            keep_only(pass_fds)
            status = helper.main(argv[argv.index(child.PROGRAM) + 1 :])
        finally:
            os._exit(status)

    def wait(self, timeout: float) -> int:
        """At once: who asks asks again."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                raise subprocess.TimeoutExpired("a fork", timeout)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, 9)


def keep_only(fds: Sequence[int]) -> None:
    """Close all others, as executing does."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in fds:
            try:
                os.close(number)
            except OSError:  # that of the listing
                continue


class Forking(process.Broker):
    """A broker whose requests bring their orders with them, so that it has no rules; *log* gets the lines."""

    log = ""

    def answer(self, packet: bytes) -> process.Answer:
        asked = json.loads(packet)
        if asked["do"] != START:
            return super().answer(packet)
        name, order = asked["what"]
        started = child.start(name, order.encode())
        self._children[started.pid] = started
        with open(self.log, "a") as file:
            file.write(f"{name} {started.pid}\n")
        report, started.report = started.report, -1
        return {"pid": started.pid}, [started.take().detach(), report]


def serve(peer: socket.socket, log: str) -> None:
    """Start what is asked for."""
    child.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    broker = Forking({}, {})
    broker.log = log
    process.serve(broker, peer)


def fork_server(log: str) -> client.Broker:
    """The process that forks, for the supervisors of this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        try:
            ours.close()
            os.setsid()
            serve(theirs, log)
        finally:
            os._exit(0)
    theirs.close()
    ours.settimeout(client.PATIENCE_S)
    return client.Broker(None, ours)  # type: ignore[arg-type]


if __name__ == "__main__":
    site = sys.argv[1]
    sys.path.append(site)
    asked = fork_server(f"{site}.log")

    def start(name: str, order: bytes) -> Child:
        return asked.start((name, order.decode()))  # type: ignore[arg-type]

    child.start = start
    sys.exit(main(sys.argv[2:]))
