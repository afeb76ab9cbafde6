"""Runs one demonstration where the VMM runs: makes the tap, starts the VMM, talks with its guest, waits for its end.

`python -m lab.demo.drive PLAN`, PLAN being a JSON file with the fields of Plan. Prints one JSON object a line:
{"note": text} or {"check": name, "ok": bool, "detail": text}. run.py has it started, on the host or in the outer VM.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

BOOT_LIMIT = 120.0  # seconds until the guest's first word
SILENCE_LIMIT = 60.0  # seconds between two lines of the guest
EXIT_LIMIT = 20.0  # seconds from the guest's last word to the VMM's exit

Start = Callable[..., subprocess.Popen[bytes]]  # with the arguments of Popen


@attrs.frozen(kw_only=True)
class Plan:
    """One run."""

    argv: list[str]
    console: str  # UNIX sockets of the two console ports, which the VMM makes
    report: str
    tap: str
    host_address: str
    guest_address: str
    nonce: str
    expected: dict[str, str]  # check -> the only good detail
    serial_log: str  # where the VMM's output goes
    dmesg: str  # where the guest's kernel log goes


class Failure(Exception):
    """The run cannot go on."""


def emit(**event: object) -> None:
    print(json.dumps(event), flush=True)


def check(name: str, ok: bool, detail: str) -> None:
    emit(check=name, ok=ok, detail=detail)


@contextmanager
def tap(name: str, address: str) -> Iterator[None]:
    """A tap device of our own, up, with this address. One left behind by a run that was killed is replaced."""
    subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{address}/30", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "tuntap", "del", "dev", name, "mode", "tap"], check=False)


@contextmanager
def vmm(plan: Plan, start: Start) -> Iterator[subprocess.Popen[bytes]]:
    """The VMM, with a standard input that never ends; killed if it is still there when the context ends."""
    for path in (plan.console, plan.report):
        Path(path).unlink(missing_ok=True)
    with open(plan.serial_log, "wb") as log:
        process = start(plan.argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connect(path: str, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connect to a socket that the VMM makes while it starts."""
    deadline = time.monotonic() + BOOT_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError, ConnectionRefusedError):
            connection.connect(path)
            return connection
        connection.close()
        time.sleep(0.02)
    raise Failure(f"the VMM made no socket {path} (exit status: {process.poll()})")


class Dialogue:
    """Our side of guest.sh."""

    def __init__(self, plan: Plan, connection: socket.socket) -> None:
        self._plan = plan
        self._connection = connection
        self._typed = ""
        self._met = False

    def run(self) -> None:
        """Answer until the guest is done."""
        self._connection.settimeout(BOOT_LIMIT)
        try:
            with self._connection.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines:
                for line in lines:
                    if self._answer(line.strip()):
                        return
        except TimeoutError:
            raise Failure("the guest has gone silent") from None
        raise Failure("the virtio console closed before the guest was done")

    def _type(self, line: str) -> None:
        self._connection.sendall(line.encode() + b"\n")

    def _answer(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        if word == "HELLO" and not self._met:
            self._met = True
            self._connection.settimeout(SILENCE_LIMIT)
            emit(note="the guest is up")
            self._type(f"GO {self._plan.nonce} {self._plan.guest_address}/30 {self._plan.host_address}")
        elif word == "PCI":
            emit(note=line)
        elif word == "PROMPT":
            self._typed = secrets.token_hex(16)
            self._type(self._typed)
        elif word == "CHECK":
            self._judge(*rest.split(" ", 2))
        elif word == "DONE":
            self._type("BYE")
            return True
        return False

    def _judge(self, name: str, verdict: str, detail: str = "") -> None:
        expected = self._typed[::-1] if name == "console" else self._plan.expected.get(name, detail)
        ok = verdict == "ok" and detail == expected
        check(name, ok, detail if detail == expected else f"{detail or 'nothing'}, expected {expected}")


def save_report(connection: socket.socket, path: str) -> None:
    """Store what comes over the console's report port, until the VMM closes it."""
    with open(path, "wb") as file, suppress(OSError):
        while data := connection.recv(65536):
            file.write(data)
            file.flush()


def run(plan: Plan, start: Start) -> None:
    with tap(plan.tap, plan.host_address), vmm(plan, start) as process:
        emit(note=f"started {Path(plan.argv[0]).name}")
        with connect(plan.console, process) as console, connect(plan.report, process) as report:
            saver = threading.Thread(target=save_report, args=(report, plan.dmesg), daemon=True)
            saver.start()
            Dialogue(plan, console).run()
            status = process.wait(EXIT_LIMIT)
            saver.join(EXIT_LIMIT)
        check("exit", status == 0, f"exit status {status} after the guest powered off")


def main(start: Start = subprocess.Popen) -> int:
    """Run the plan that the command line names, whose VMM *start* starts."""
    # A default SIGTERM would leave the tap behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["PATH"] = "/usr/sbin:/sbin:" + os.environ.get("PATH", "/usr/bin:/bin")
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        run(plan, start)
    except (Failure, OSError, subprocess.SubprocessError) as error:
        check("run", False, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
