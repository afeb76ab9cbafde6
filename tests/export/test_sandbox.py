"""``acrn-dm-export … --sandbox``: devices are served as without, to one client after another, in a sandbox."""

import struct
import sys
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.base.errors import ConfigError
from acrn_dm.devices import virtio_blk
from acrn_dm.export.cli import main
from acrn_dm.export.program import Parser, add_socket_options
from acrn_dm.testing import SimMachine
from tests.backends.helper.helper_rig import answer
from tests.backends.user.user_rig import OUT, Daemon
from tests.base.sandbox.sandbox_rig import needs_all
from tests.export.vfio_user.vfio_rig import Client, rings
from tests.export.vfio_user.virtio_rig import BASE, DATA, RAM, driver

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli")
pytestmark = needs_all


def confined(daemon: Daemon) -> bool:
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return "Seccomp:\t2" in lines and "CapEff:\t0000000000000000" in lines


@pytest.mark.parametrize("mode", ["off", "on", "strict"])
def test_two_disks_for_one_machine_after_another(tmp_path: Path, mode: str) -> None:
    images = [tmp_path / "a.img", tmp_path / "b.img"]
    for image in images:
        image.write_bytes(bytes(1 << 16))
    argv = [*PROGRAM, "vhost-user", *(f"virtio-blk,{image}" for image in images), f"--socket-path={tmp_path / 's'}"]
    daemon = Daemon([*argv, f"--sandbox={mode}"], tmp_path / "s1", tmp_path / "log")
    daemon.start()
    try:
        for round_ in range(2):
            for n, _ in enumerate(images):
                with SimMachine(plugins=[virtio_blk, vhost_user]) as machine:
                    machine.add("virtio-blk", f"vhost-user={tmp_path / 's'}{n}", slot=3)
                    driver = machine.driver(3)
                    driver.start()
                    driver.queue(0).send([struct.pack("<IIQ", OUT, 0, round_), b"w" * 512], [1])
                    driver.queue(0).kick()
                    assert answer(machine, driver).data == b"\0"
        assert confined(daemon) == (mode != "off")
    finally:
        daemon.kill()
    assert [image.read_bytes()[:1536] for image in images] == [b"w" * 1024 + bytes(512)] * 2
    assert (tmp_path / "log").read_text() == ""


def test_function_for_one_client_after_another(tmp_path: Path) -> None:
    path = tmp_path / "s"
    argv = [*PROGRAM, "vfio-user", "edu", f"--socket-path={path}", "--sandbox=strict"]
    daemon = Daemon(argv, path, tmp_path / "log")
    daemon.start()
    try:
        for number in (3, 4):
            client = Client.connect(path)
            client.greet()
            client.write(0, 4, struct.unpack("<I", bytes([number] * 4))[0])
            assert client.read(0, 4) == ~struct.unpack("<I", bytes([number] * 4))[0] & 0xFFFFFFFF
            client.close()
        assert confined(daemon)
    finally:
        daemon.kill()
    assert (tmp_path / "log").read_text() == ""


def test_virtio_function_moves_data_and_interrupts_as_without(tmp_path: Path) -> None:
    path = tmp_path / "s"
    argv = [*PROGRAM, "vfio-user", "virtio-rnd", f"--socket-path={path}", "--sandbox=strict"]
    daemon = Daemon(argv, path, tmp_path / "log")
    daemon.start()
    try:
        for _ in range(2):
            with driver(path) as it:
                it.start()
                it.send(0, in_=[(BASE + DATA, 64)])
                assert rings(it.calls[0])
                assert it.done(0)[0][1] == 64
                assert not it.client.unmap(BASE, RAM)
        assert confined(daemon)
    finally:
        daemon.kill()
    assert (tmp_path / "log").read_text() == ""


def test_wrong_mode_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vhost-user", "virtio-rnd", "--socket-path=/none", "--sandbox=loose"]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert "--sandbox: invalid choice: 'loose'" in line


def test_there_is_none_unless_it_is_asked_for() -> None:
    parser = Parser()
    add_socket_options(parser, several=False)
    assert parser.parse_args([]).sandbox == "off"
    with pytest.raises(ConfigError):
        parser.parse_args(["--sandbox"])
