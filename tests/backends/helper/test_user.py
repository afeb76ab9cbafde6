"""The user of a device's process (``user=``): root opens the device, and another serves it."""

import os
import struct
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine, VirtioDriver
from tests.backends.helper import naughty
from tests.backends.helper.helper_rig import answer, child, gone, kill, serving, sim
from tests.backends.user.user_rig import OUT
from tests.base.sandbox.sandbox_rig import needs_all
from tests.contract.plugins.installed import install

UID, GID = 54_321_000, 54_321_001  # nobody's numbers
USER = f"user={UID}:{GID}"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 16))
    path.chmod(0o600)
    return path


def ids(pid: int) -> tuple[list[str], list[str], list[str]]:
    """The user, the group and the groups of process *pid*: real, effective, saved and of file systems."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    uid, gid, groups = (next(line for line in lines if line.startswith(name)) for name in ("Uid:", "Gid:", "Groups:"))
    return uid.split()[1:], gid.split()[1:], groups.split()[1:]


def write(machine: SimMachine, driver: VirtioDriver, sector: int) -> None:
    driver.queue(0).send([struct.pack("<IIQ", OUT, 0, sector), b"w" * 512], [1])
    driver.queue(0).kick()
    assert answer(machine, driver).data == b"\0"


@needs_root
@needs_all
@pytest.mark.parametrize("mode", ["off", "on", "strict"])
def test_process_is_that_user_and_the_next_one_too(open_python: None, image: Path, mode: str) -> None:
    with sim() as machine:
        function: PciFunction = machine.add("virtio-blk", f"{image},process=on,sandbox={mode},{USER}", slot=3)
        driver = machine.driver(3)
        driver.start()
        assert ids(child(function).pid) == ([str(UID)] * 4, [str(GID)] * 4, [])
        write(machine, driver, 0)
        assert gone(kill(function))
        while not serving(function):
            machine.settle()
        assert ids(child(function).pid) == ([str(UID)] * 4, [str(GID)] * 4, [])
        write(machine, driver, 1)
    assert image.read_bytes()[:1024] == b"w" * 1024


@needs_root
def test_device_reaches_no_file_of_root_s_without_a_sandbox(
    open_python: None, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "naughty", "", target=naughty.__name__, devices=["naughty"])
    monkeypatch.syspath_prepend(tmp_path / "site")
    with SimMachine(plugins=[naughty]) as machine:
        machine.add("naughty", f"process=on,restart=never,sandbox=off,{USER}", slot=3)
        driver = machine.driver(3)
        driver.start()
        for order, told in ((f"read {image}", b"EACCES"), ("read /etc/passwd", b"ok"), ("kill", b"EPERM")):
            driver.queue(0).send([order.encode()], [200])
            driver.queue(0).kick()
            assert answer(machine, driver).data.rstrip(b"\xa5") == told


@needs_root
@pytest.mark.parametrize("mode", ["off", "on"])
def test_file_that_is_opened_later_and_not_that_user_s_is_told(
    open_python: None, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    install(tmp_path / "site", "naughty", "", target=naughty.__name__, devices=["naughty"])
    monkeypatch.syspath_prepend(tmp_path / "site")
    with SimMachine(plugins=[naughty]) as machine, pytest.raises(HostError) as caught:  # noqa: PT012 - either may
        machine.add("naughty", f"named={image},process=on,restart=never,sandbox={mode},{USER}", slot=3)
        machine.driver(3).start()
    assert str(image) in str(caught.value)
    assert mode == "on" or f"the user {UID}:{GID} can't read {image}, which is opened later" in str(caught.value)


def test_who_is_not_root_is_told(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine = sim()
    function = machine.add("virtio-blk", f"{image},process=on,{USER}", slot=3)
    assert function.check() == [f"virtio-blk-3:0: user={UID}:{GID}: only root can become another user"]
    machine.close()
