"""virtio-fs on QEMU's virtiofsd, which ends with its connection: what becomes of a driver when it does."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET
from tests.backends.user.user_rig import Daemon, eventually

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
FUSE_INIT, UNIQUE = 26, 0x1234
REQUESTS = 1
IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")  # fuse_in_header, fuse_out_header
INIT_IN, INIT_OUT_BYTES = struct.Struct("<IIII48x"), 64
MAJOR, MINOR = 7, 36

pytestmark = [
    pytest.mark.skipif(not VIRTIOFSD.exists(), reason=f"there is no {VIRTIOFSD}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd needs root"),
    pytest.mark.process,
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    shared = tmp_path / "shared"
    shared.mkdir()
    path = tmp_path / "s"
    argv = [str(VIRTIOFSD), f"--socket-path={path}", "-o", f"source={shared},sandbox=chroot"]
    daemon = Daemon(argv, path, tmp_path / "log")
    daemon.start()
    yield daemon
    daemon.kill()


def greet(machine: SimMachine, driver: VirtioDriver) -> tuple[int, int]:
    """FUSE_INIT, which mounting begins with; returns error and the protocol's major version."""
    request = INIT_IN.pack(MAJOR, MINOR, 1 << 16, 0)
    head = IN_HEADER.pack(IN_HEADER.size + len(request), FUSE_INIT, UNIQUE, 0, 0, 0, 0, 0)
    queue = driver.queue(REQUESTS)
    queue.send([head, request], [OUT_HEADER.size, INIT_OUT_BYTES])
    queue.kick()
    eventually(machine, lambda: queue.ring.used_idx() == 1)
    (done,) = queue.completed()
    _, error, unique = OUT_HEADER.unpack_from(done.data)
    assert unique == UNIQUE
    return error, int.from_bytes(done.data[OUT_HEADER.size : OUT_HEADER.size + 4], "little")


def test_driver_that_is_asked_for_a_reset_begins_anew_with_the_next_process(daemon: Daemon) -> None:
    with SimMachine() as machine:
        machine.add("virtio-fs", f"socket={daemon.socket},tag=t", slot=3)
        driver = machine.driver(3)
        driver.start()
        assert greet(machine, driver) == (0, MAJOR)
        daemon.kill()
        eventually(machine, lambda: bool(driver.status & NEEDS_RESET))
        daemon.start(wait=False)
        driver.start()
        assert greet(machine, driver) == (0, MAJOR)
        assert not driver.status & NEEDS_RESET


def test_driver_may_begin_anew_without_the_end_of_the_process(daemon: Daemon) -> None:
    """A guest that reboots."""
    with SimMachine() as machine:
        machine.add("virtio-fs", f"socket={daemon.socket},tag=t", slot=3)
        driver = machine.driver(3)
        for _ in range(2):
            driver.start()
            assert greet(machine, driver) == (0, MAJOR)
            driver.reset()
        assert machine.failures == []
