"""Our console as a vhost-user back-end, driven through our front-end; and the program's conventions."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.devices import virtio_console
from acrn_dm.export.vhost_user.cli import main
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import EVENT_IDX, INDIRECT_DESC, VERSION_1
from tests.backends.user.user_rig import Daemon, eventually

PLAIN = VERSION_1 | EVENT_IDX | INDIRECT_DESC  # without MULTIPORT there is one port, open from the start
TO_GUEST, FROM_GUEST = 0, 1
BUFFER = 4096
PROGRAM = (sys.executable, "-m", "acrn_dm.export.vhost_user.cli")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    path = tmp_path / "console.sock"
    argv = [*PROGRAM, "console", f"--socket-path={path}", f"socket:port0={tmp_path / 'port0'}:server:wait"]
    daemon = Daemon(argv, path, tmp_path / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with SimMachine(memory=32 * MIB, plugins=[virtio_console, vhost_user]) as machine:
        yield machine


@pytest.fixture
def driver(daemon: Daemon, machine: SimMachine) -> VirtioDriver:
    machine.add("virtio-console", f"vhost-user={daemon.socket}", slot=3)
    driver = machine.driver(3)
    driver.start(PLAIN)
    return driver


@pytest.fixture
def terminal(daemon: Daemon, driver: VirtioDriver) -> Iterator[socket.socket]:
    """The host's side of port 0, connected and known to the device."""
    with socket.socket(socket.AF_UNIX) as terminal:
        terminal.connect(str(daemon.socket.parent / "port0"))
        terminal.setblocking(False)
        queue = driver.queue(TO_GUEST)
        queue.send(in_=[1])
        queue.kick()
        terminal.send(b"!")
        eventually(driver.machine, lambda: bool(queue.completed()))  # from now on nothing is thrown away
        yield terminal


def received(terminal: socket.socket) -> bytes:
    try:
        return terminal.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_10_mb_to_the_host_and_10_mb_to_the_guest_arrive_unchanged(
    driver: VirtioDriver, terminal: socket.socket
) -> None:
    data = random.Random(5).randbytes(10 << 20)
    chunks = [data[at : at + BUFFER] for at in range(0, len(data), BUFFER)]
    assert host_digest(driver, terminal, iter(chunks), len(data)) == hashlib.sha256(data).digest()
    assert guest_digest(driver, terminal, data) == hashlib.sha256(data).digest()
    assert driver.machine.failures == []


def host_digest(driver: VirtioDriver, terminal: socket.socket, chunks: Iterator[bytes], size: int) -> bytes:
    """Send *chunks* from the guest; digest of what the host gets."""
    queue, digest, left = driver.queue(FROM_GUEST), hashlib.sha256(), size
    deadline = time.monotonic() + 60
    while left:
        assert time.monotonic() < deadline, f"{left} bytes are missing"
        for chunk in itertools.islice(chunks, queue.ring.layout.size - queue.in_flight):
            queue.send([chunk])
        queue.kick()
        part = received(terminal)
        digest.update(part)
        left -= len(part)
        queue.completed()
    eventually(driver.machine, lambda: queue.completed() == [] and queue.in_flight == 0)
    return digest.digest()


def guest_digest(driver: VirtioDriver, terminal: socket.socket, data: bytes) -> bytes:
    """Send *data* from the host; digest of what the guest gets."""
    queue, digest, sent, got = driver.queue(TO_GUEST), hashlib.sha256(), 0, 0
    deadline = time.monotonic() + 60
    while got < len(data):
        assert time.monotonic() < deadline, f"{len(data) - got} bytes are missing"
        while queue.in_flight < queue.ring.layout.size:
            queue.send(in_=[BUFFER])
        queue.kick()
        if sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += terminal.send(data[sent : sent + (64 << 10)])
        for completion in queue.completed():
            digest.update(completion.data[: completion.written])
            got += completion.written
    return digest.digest()


def test_configuration_space_is_the_daemons(driver: VirtioDriver) -> None:
    columns, rows = driver.registers.read_config(0, 2), driver.registers.read_config(2, 2)
    assert (columns, rows) == (80, 25)
    assert driver.registers.read_config(4, 4) == 1


def test_emergency_write_reaches_the_host(driver: VirtioDriver, terminal: socket.socket) -> None:
    driver.registers.write_config(8, 4, ord("E"))
    eventually(driver.machine, lambda: received(terminal) == b"E")


def test_driver_comes_back_after_reset(driver: VirtioDriver, terminal: socket.socket) -> None:
    driver.reset()
    driver.start(PLAIN)
    driver.queue(FROM_GUEST).send([b"again"])
    driver.queue(FROM_GUEST).kick()
    eventually(driver.machine, lambda: received(terminal) == b"again")


def test_second_machine_is_served_when_the_first_is_gone(daemon: Daemon, tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        with (
            SimMachine(plugins=[virtio_console, vhost_user]) as machine,
            socket.socket(socket.AF_UNIX) as terminal,
        ):
            machine.add("virtio-console", f"vhost-user={daemon.socket}", slot=3)
            driver = machine.driver(3)
            driver.start(PLAIN)
            terminal.connect(str(tmp_path / "port0"))
            terminal.setblocking(False)
            driver.queue(TO_GUEST).send(in_=[1])
            driver.queue(TO_GUEST).kick()
            terminal.send(b"!")
            eventually(machine, lambda driver=driver: bool(driver.queue(TO_GUEST).completed()))  # type: ignore[misc]
            driver.queue(FROM_GUEST).send([text])
            driver.queue(FROM_GUEST).kick()
            eventually(machine, lambda terminal=terminal, text=text: received(terminal) == text)  # type: ignore[misc]


# The program


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_sigterm_ends_it_with_0_and_the_socket_is_gone(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert not daemon.socket.exists()


def test_print_capabilities_is_json_and_needs_no_socket() -> None:
    result = run("console", "--print-capabilities")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"type": "console"}


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("console",), 64, "--socket-path"),
        (("console", "--fd=99"), 78, "--fd"),
        (("console", "--socket-path=/nowhere/x"), 1, "/nowhere/x"),
    ],
)
def test_wrong_command_line_is_refused_in_one_line(arguments: tuple[str, ...], code: int, word: str) -> None:
    result = run(*arguments)
    assert result.returncode == code
    assert word in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("toaster", "--socket-path=/tmp/x"), 64, "toaster"),
        (("console", "--socket-path=/tmp/x", "--fd=3"), 64, "--fd"),
        (("console", "--fd=-1"), 64, "--fd: expected 0 to 2147483647"),
        (("console", "--fd=x"), 64, "--fd: expected 0 to 2147483647"),
        (("console", "--fd=2147483648"), 64, "--fd: expected 0 to 2147483647"),
        (("console", f"--fd={'9' * 5000}"), 64, "--fd: expected 0 to 2147483647"),
        (("console", "--fd=2147483647"), 78, "--fd"),
        (("console", "--socket-path=/tmp/x", "fax:port0"), 78, "fax"),
        (("console", "--socket-path=/tmp/x", "vhost-user=/tmp/y"), 78, "can't be served"),
        (("console", "--socket-path=/tmp/x", "backend=vhost,@stdio:port0"), 78, "can't be served"),
    ],
)
def test_what_can_not_be_served_is_refused_in_one_line(
    arguments: tuple[str, ...], code: int, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    told = capfd.readouterr().err
    assert word in told
    assert told.count("\n") == 1


def test_inherited_connected_socket_is_served_and_its_end_ends_the_program(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    argv = [*PROGRAM, "console", f"--fd={theirs.fileno()}", f"file:log={tmp_path / 'out'}"]
    with subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.sendall(bytes((1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)))  # GET_FEATURES
        assert len(ours.recv(100)) == 20
        ours.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("kind", ["connected", "listening"])
@pytest.mark.parametrize("blocking", [True, False])
def test_inherited_socket_is_afterwards_as_it_came(tmp_path: Path, kind: str, blocking: bool) -> None:
    if kind == "connected":
        ours, theirs = socket.socketpair()
    else:
        theirs = socket.socket(socket.AF_UNIX)
        theirs.bind(str(tmp_path / "s"))
        theirs.listen(1)
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(str(tmp_path / "s"))
    theirs.setblocking(blocking)
    argv = [*PROGRAM, "console", f"--fd={theirs.fileno()}", f"file:log={tmp_path / 'out'}"]
    with ours, theirs, subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        ours.sendall(bytes((1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)))  # GET_FEATURES
        assert len(ours.recv(100)) == 20
        process.terminate()
        assert process.wait(60) == 0
        assert os.get_blocking(theirs.fileno()) is blocking


def test_socket_of_a_living_process_is_not_taken_over(daemon: Daemon) -> None:
    result = run("console", f"--socket-path={daemon.socket}", "pty:x")
    assert result.returncode == 78
    assert "somebody listens there already" in result.stderr
    assert os.path.exists(daemon.socket)
