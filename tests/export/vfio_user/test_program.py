"""``acrn-dm-export vfio-user``: what it serves and refuses, and how it ends."""

import json
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from acrn_dm.export.cli import main
from tests.backends.user.user_rig import Daemon
from tests.export.vfio_user.vfio_rig import IRQ_INFO, MSI, MSIX, Client, rings
from tests.patience import comes_true

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli", "vfio-user")


def test_edu_is_served_to_one_client_after_another_until_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "s"
    daemon = Daemon([*PROGRAM, "edu,dma_mask=0xffff", f"--socket-path={path}"], path, tmp_path / "log")
    daemon.start()
    try:
        for number, result in ((5, 120), (6, 720)):
            client = Client.connect(path)
            client.greet()
            line = client.eventfd(0)
            client.write(0, 0x20, 0x80)
            client.write(0, 8, number, posted=True)
            assert rings(line)
            assert client.read(0, 8) == result
            client.close()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
        assert not path.exists()
    finally:
        daemon.kill()
    assert (tmp_path / "log").read_text() == ""


def test_connected_socket_is_served_once(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        argv = [*PROGRAM, "edu", f"--fd={theirs.fileno()}"]
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    try:
        ours.settimeout(30)
        client = Client(ours)
        client.greet()
        client.close()
        assert comes_true(lambda: process.poll() is not None, 30)
        assert process.communicate(timeout=30) == (None, b"")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_each_device_of_a_process_has_a_client_of_its_own(tmp_path: Path) -> None:
    """Silent ones, and those that stop within a message, keep nobody from the other."""
    path = tmp_path / "s"
    daemon = Daemon([*PROGRAM, "edu", "edu", f"--socket-path={path}"], tmp_path / "s1", tmp_path / "log")
    daemon.start()
    try:
        silent, half, other = (Client.connect(Path(f"{path}{number}")) for number in (0, 0, 1))
        half.socket.sendall(b"\1\0\1")
        other.greet()
        other.write(0, 8, 5, posted=True)
        assert comes_true(lambda: other.read(0, 8) == 120)
        for client in (silent, half, other):
            client.close()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
    finally:
        daemon.kill()
    assert (tmp_path / "log").read_text() == ""


def test_client_that_is_silent_keeps_no_other_from_its_device(tmp_path: Path) -> None:
    path = tmp_path / "s"
    daemon = Daemon([*PROGRAM, "edu", f"--socket-path={path}"], path, tmp_path / "log")
    daemon.start()
    try:
        silent, client = Client.connect(path), Client.connect(path)
        client.socket.settimeout(5)
        client.greet()
        assert client.read(0, 0) == 0x010000ED
        silent.close()
        client.close()
    finally:
        daemon.kill()


@pytest.mark.parametrize(("words", "vectors"), [((), (0, 2)), (("--virtio_msi",), (1, 0))])
def test_virtio_device_has_msi_in_place_of_msix_where_that_is_asked_for(
    words: tuple[str, ...], vectors: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "s"
    daemon = Daemon([*PROGRAM, "virtio-rnd", f"--socket-path={path}", *words], path, tmp_path / "log")
    daemon.start()
    try:
        client = Client.connect(path)
        client.greet()
        infos = [client.ask(IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0)).struct("<IIII") for index in (MSI, MSIX)]
        assert tuple(info[3] for info in infos) == vectors
        client.close()
    finally:
        daemon.kill()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("virtio-rnd,process=on", "does not follow memory"),
        ("virtio-balloon", "balloon of its own"),
        ("vfio-user,socket=/run/none", "another process's"),
        ("nothing", "nothing"),
        ("edu,mask=1", "mask"),
    ],
)
def test_what_can_not_be_served_is_one_line(
    device: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vfio-user", device, f"--socket-path={tmp_path / 's'}"]) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("acrn-dm-export: ")
    assert said in line
    assert not (tmp_path / "s").exists()


def test_socket_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vfio-user", "edu"]) == 64
    assert "--socket-path" in capsys.readouterr().err


def test_capabilities_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vfio-user", "edu", "--print-capabilities"]) == 0
    assert json.loads(capsys.readouterr().out) == {"type": "pci"}
