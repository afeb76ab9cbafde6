"""A reset of the guest opens no path of the host again: what was booted first is booted always."""

import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.contract.config import DeviceSpec, Firmware, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.build import build
from acrn_dm.machine.machine import Machine
from acrn_dm.memory.guest_memory import MIB
from tests.boot.samples import make_bzimage, make_firmware

_opened: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(str(arguments[0]))


sys.addaudithook(_audit)


@contextmanager
def opened_paths() -> Iterator[list[str]]:
    """Every path that this process opens while the block runs."""
    global _watching
    _opened.clear()
    _watching = True
    try:
        yield _opened
    finally:
        _watching = False


class Host:
    """The files that a machine boots from, and the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = self._file("kernel", make_bzimage())
        self.ramdisk = self._file("ramdisk", b"r" * 5000)
        self.firmware = self._file("firmware", make_firmware(1 * MIB, for_qemu=False))
        self.disk = self._file("disk", bytes(1 << 20))
        self.machine: Machine | None = None

    def _file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def boot(self, **config: Any) -> Machine:
        disk = DeviceSpec(bdf=Bdf(slot=3), kind="virtio-blk", text=str(self.disk))
        plugins = make_plugin_manager(entry_points=False)
        made = build(
            MachineConfig(hypervisor="sim", memory_bytes=128 * MIB, devices=(disk,), **config), plugins, threads=False
        )
        self.machine = made
        assert made.check() == []
        made.realize()
        made.boot()
        return made


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    if host.machine is not None:
        host.machine.close()


CONFIGS: dict[str, Callable[[Host], dict[str, Any]]] = {
    "kernel and ramdisk": lambda h: {"kernel": h.kernel, "ramdisk": h.ramdisk},
    "firmware": lambda h: {"firmware": Firmware(image=h.firmware)},
    "firmware with variables": lambda h: {"firmware": Firmware(image=h.firmware, writeback=True)},
    "QEMU's firmware and a kernel": lambda h: {
        "firmware": Firmware(image=h._file("qemus", make_firmware(1 * MIB))),
        "kernel": h.kernel,
        "ramdisk": h.ramdisk,
    },
}


def memory(machine: Machine) -> list[int]:
    """A checksum of each region: the loader has filled memory, and nobody has changed it since."""
    assert machine.memory is not None
    return [zlib.crc32(machine.memory.read(r.gpa, r.size)) for r in machine.memory.regions]


@pytest.mark.stress
@pytest.mark.parametrize("what", CONFIGS)
@pytest.mark.parametrize("change", ["removed", "replaced", "rewritten"])
def test_guest_that_resets_boots_what_it_has_booted_before(host: Host, what: str, change: str) -> None:
    machine = host.boot(**CONFIGS[what](host))
    before = memory(machine)
    for path in (host.kernel, host.ramdisk, host.firmware, host.disk):
        if change == "rewritten":
            path.write_bytes(b"something else")
            continue
        path.unlink()
        if change == "replaced":
            path.write_bytes(b"something else")
    machine.reset()
    machine.boot()
    assert memory(machine) == before


@pytest.mark.parametrize("what", CONFIGS)
def test_reset_opens_nothing(host: Host, what: str) -> None:
    machine = host.boot(**CONFIGS[what](host))
    with opened_paths() as opened:
        machine.reset()
        machine.boot()
    assert opened == []


def test_watching_sees_what_is_opened(host: Host) -> None:
    with opened_paths() as opened:
        host.kernel.read_bytes()
    assert opened == [str(host.kernel)]
