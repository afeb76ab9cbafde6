"""``acrn-dm-export … --user``: the device is root's to open, and another's to serve."""

import os
import struct
import sys
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.devices import virtio_blk
from acrn_dm.export.cli import main
from acrn_dm.testing import SimMachine
from tests.backends.helper.helper_rig import answer
from tests.backends.helper.test_user import GID, UID, ids, needs_root
from tests.backends.user.user_rig import OUT, Daemon
from tests.base.sandbox.sandbox_rig import needs_all
from tests.export.vfio_user.vfio_rig import Client

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli")


@needs_root
@needs_all
@pytest.mark.parametrize("mode", ["off", "strict"])
def test_disk_of_root_s_is_served_by_another(open_python: None, tmp_path: Path, mode: str) -> None:
    image, path = tmp_path / "disk.img", tmp_path / "s"
    image.write_bytes(bytes(1 << 16))
    image.chmod(0o600)
    argv = [*PROGRAM, "vhost-user", f"virtio-blk,{image}", f"--socket-path={path}", f"--user={UID}:{GID}"]
    daemon = Daemon([*argv, f"--sandbox={mode}"], path, tmp_path / "log")
    daemon.start()
    try:
        with SimMachine(plugins=[virtio_blk, vhost_user]) as machine:
            machine.add("virtio-blk", f"vhost-user={path}", slot=3)
            driver = machine.driver(3)
            driver.start()
            driver.queue(0).send([struct.pack("<IIQ", OUT, 0, 0), b"w" * 512], [1])
            driver.queue(0).kick()
            assert answer(machine, driver).data == b"\0"
        assert daemon.process is not None
        assert ids(daemon.process.pid) == ([str(UID)] * 4, [str(GID)] * 4, [])
    finally:
        daemon.kill()
    assert image.read_bytes()[:512] == b"w" * 512
    assert (tmp_path / "log").read_text() == ""


@needs_root
def test_function_is_served_by_another(open_python: None, tmp_path: Path) -> None:
    path = tmp_path / "s"
    daemon = Daemon(
        [*PROGRAM, "vfio-user", "edu", f"--socket-path={path}", f"--user={UID}:{GID}"], path, tmp_path / "l"
    )
    daemon.start()
    try:
        client = Client.connect(path)
        client.greet()
        client.close()
        assert daemon.process is not None
        assert ids(daemon.process.pid)[0] == [str(UID)] * 4
    finally:
        daemon.kill()


@pytest.mark.parametrize("protocol", ["vhost-user", "vfio-user"])
def test_wrong_user_is_one_line(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([protocol, "virtio-rnd", "--socket-path=/none", "--user=no-such-user"]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert "--user: no such user; expected NAME or UID" in line


@pytest.mark.parametrize("protocol", ["vhost-user", "vfio-user"])
def test_who_is_not_root_is_told_and_nothing_is_opened(
    protocol: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([protocol, "virtio-rnd", "--socket-path=/none/s", f"--user={UID}:{GID}"]) == 78
    assert f"--user: '{UID}:{GID}': only root can become another user" in capsys.readouterr().err
