"""The command line of ``acrn-dm-export``: what it serves, what it refuses, what it tells."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.export.cli import main
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import Client, wait_used
from tests.patience import comes_true

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli")
PASSING = """
import fcntl, os, sys
a, b = (fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3])
os.dup2(a, 3), os.dup2(b, 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
os.execv(sys.argv[3], sys.argv[3:])
"""
FOREIGN = """
from acrn_dm import DeviceType, VirtioDevice, hookimpl
import attrs

class Dice(VirtioDevice):
    device_id = 61

    def check(self):
        if self.context.text == "broken":
            raise SystemExit("no dice")
        return []

@attrs.frozen
class Config:
    @classmethod
    def from_string(cls, text):
        if text == "bad":
            raise RuntimeError("a grammar that fails")
        return cls()

@hookimpl
def acrn_dm_device_types():
    return [DeviceType(name="virtio-dice", summary="thrown", config=Config, create=lambda c, context: Dice(context))]
"""


@pytest.fixture
def foreign(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has a plugin installed of a virtio id that no built-in device has."""
    (tmp_path / "dice.py").write_text(FOREIGN)
    info = tmp_path / "dice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[acrn_dm]\ndice = dice\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}


@contextlib.contextmanager
def killed(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """It is not waited for when the test has failed."""
    try:
        yield
    finally:
        process.kill()


def run(*words: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    argv = [*PROGRAM, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        *(("virtio-blk,/no/such/image", "block"), ("virtio-net", "net"), ("virtio-console", "console")),
        *(("virtio-rnd", "rng"), ("virtio-input", "input"), ("virtio-gpio", "gpio"), ("virtio-i2c", "i2c")),
    ],
)
def test_capabilities_are_told_by_qemu_s_names_and_need_no_files(
    text: str, type_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vhost-user", text, "--print-capabilities"]) == 0
    assert json.loads(capsys.readouterr().out) == {"type": type_}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("edu",), 78, "edu: no virtio device, so vhost-user has no way to serve it"),
        (("lpc",), 78, "lpc: no virtio device"),
        (("virtio-balloon",), 78, "virtio-balloon: the memory is the front-end's"),
        (("virtio-pmem,file=/x,size=2M",), 78, "virtio-pmem: "),
        (("virtio-blkk,./x",), 78, "did you mean 'virtio-blk'? see '--help'"),
        (("virtio-blk,/no/such/image",), 78, "/no/such/image"),
        (("virtio-net,tap=x,vhost",), 78, "can't be served by others"),
        (("virtio-rnd,iothread=2",), 78, "iothread"),
        (("virtio-rnd,no=option",), 78, "no"),
        (("virtio-rnd", "virtio-rnd", "--socket-count=2"), 64, "--socket-count"),
        (("virtio-rnd", "--socket-count=0"), 64, "is not a decimal number from 1 to 64"),
        (("virtio-rnd", "--socket-count=" + "9" * 5000), 64, "is not a decimal number from 1 to 64"),
        (("virtio-rnd", "--fd=3"), 64, "not allowed with"),
        ((), 64, "DEVICE[,OPTIONS]"),
    ],
)
def test_what_can_not_be_served_is_refused_in_one_line(
    words: tuple[str, ...], code: int, said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["vhost-user", f"--socket-path={tmp_path / 's'}", *words]) == code
    told = capfd.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_help_teaches_and_lists_what_can_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["vhost-user", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    listed = [line.split()[0].rstrip(",") for line in told.partition("can be served here:\n")[2].splitlines()]
    assert {"virtio-blk", "virtio-net", "virtio-console", "virtio-rnd", "virtio-gpio"} <= set(listed)
    assert not {"edu", "lpc", "virtio-balloon", "virtio-pmem", "vhost-vsock"} & set(listed)
    assert "memory-backend-memfd" in told


def test_plugin_of_a_foreign_id_is_served_and_its_failures_are_blamed_on_it(
    foreign: dict[str, str], tmp_path: Path
) -> None:
    ours, theirs = socket.socketpair()
    argv = [*PROGRAM, "vhost-user", "virtio-dice", f"--fd={theirs.fileno()}"]
    with ours, subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=foreign) as process, killed(process):
        theirs.close()
        ours.sendall(bytes((1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)))  # GET_FEATURES
        assert len(ours.recv(100)) == 20
        ours.close()
        assert process.wait(30) == 0
    for options, said in (("bad", "RuntimeError: a grammar that fails"), ("broken", "sys.exit(no dice)")):
        result = run("vhost-user", f"virtio-dice,{options}", f"-s{tmp_path / 's'}", env=foreign)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert said in result.stderr
        assert "dice 1.0" in result.stderr


def test_sockets_come_from_systemd_one_for_each_device(tmp_path: Path) -> None:
    """As systemd passes them: descriptors 3 and 4, and the process's own number."""
    listeners = []
    for name in ("a", "b"):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(str(tmp_path / name))
        listeners[-1].listen(1)
    argv = [*PROGRAM, "vhost-user", "virtio-rnd", f"virtio-console,file:log={tmp_path / 'o'}"]
    fds = [listener.fileno() for listener in listeners]
    argv = [sys.executable, "-c", PASSING, *map(str, fds), *argv]
    with listeners[0], listeners[1], subprocess.Popen(argv, pass_fds=fds) as process, killed(process):
        for name, queues in (("a", 1), ("b", 4)):  # a console has two more for control
            client = Client.connect(tmp_path / name)
            client.socket.settimeout(30)
            with contextlib.closing(client):
                assert client.queues() == queues
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("device", ["virtio-rnd", "virtio-console,@file:port0=%/out", "virtio-blk,%/disk"])
def test_client_that_shortens_its_memory_while_its_device_works_costs_the_other_device_nothing(
    device: str, tmp_path: Path
) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    paths = [tmp_path / "s0", tmp_path / "s1"]
    words = [device.replace("%", str(tmp_path)), "virtio-rnd", *(f"--socket-path={path}" for path in paths)]
    daemon = Daemon([*PROGRAM, "vhost-user", *words], paths[1], tmp_path / "log")
    daemon.start()
    clients = [Client.connect(path) for path in paths]
    try:
        for client in clients:
            client.negotiate()
            client.share_memory()
        (_, kick, _), (ring, other, _) = (client.ring(0) for client in clients)
        os.ftruncate(clients[0].fd, 4096)
        os.eventfd_write(kick, 1)
        assert clients[0].answer() is None
        ring.add_chain(in_=[(0x80000, 64)])
        ring.publish()
        os.eventfd_write(other, 1)
        wait_used(ring, 1)
        assert comes_true(lambda: "the client has shortened memory" in daemon.log.read_text())
        with contextlib.closing(Client.connect(paths[0])) as after:
            assert after.queues() >= 1
    finally:
        for client in clients:
            client.close()
        daemon.kill()


def test_hostile_and_silent_clients_cost_the_other_devices_nothing(tmp_path: Path) -> None:
    """Three devices in one process, each client's fate its own; SIGTERM ends it while they are connected."""
    path = tmp_path / "s"
    argv = [*PROGRAM, "vhost-user", "virtio-rnd", f"--socket-path={path}", "--socket-count=3"]
    daemon = Daemon(argv, Path(f"{path}2"), tmp_path / "log")
    daemon.start()
    try:
        silent, hostile, other = (Client.connect(Path(f"{path}{i}")) for i in range(3))
        assert other.queues() == 1
        hostile.socket.sendall(b"\xff" * 12)
        assert hostile.answer() is None
        assert other.queues() == 1
        assert daemon.process is not None
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0
        assert not list(tmp_path.glob("s*"))
        for client in (silent, hostile, other):
            client.close()
    finally:
        daemon.kill()
