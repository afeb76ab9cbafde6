"""File descriptors: a machine opens no more than were counted."""

import os
from pathlib import Path

import pytest

from acrn_dm.contract.config import MachineConfig
from acrn_dm.devices import virtio_blk, virtio_console
from acrn_dm.machine.check.descriptors import FILES_OF_A_DEVICE, descriptors
from acrn_dm.testing import SimMachine

DEVICES = {
    "virtio-console": "pty:a,pty:b",
    "virtio-blk": "{folder}/disk,nocache",
}


@pytest.mark.parametrize("kind", DEVICES)
def test_machine_opens_no_more_files_than_were_counted_and_not_many_less(kind: str, tmp_path: Path) -> None:
    """Of ten devices under their drivers. The simulated hypervisor duplicates each eventfd; a real one does not."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    text = DEVICES[kind].format(folder=tmp_path)
    before = files()
    with SimMachine(plugins=[virtio_blk, virtio_console]) as machine:
        for slot in range(3, 13):
            machine.add(kind, f"{text},share=on" if kind == "virtio-blk" else text, slot=slot)
        for slot in range(3, 13):
            machine.driver(slot).start()
        duplicates = len(machine.vm.kicks.bindings) + len(machine.vm.interrupts.bindings)
        used = files() - before - duplicates
        counted = descriptors(MachineConfig(), machine.bus)
    assert used <= counted <= used + 64 + 2 + 10 * FILES_OF_A_DEVICE


def files() -> int:
    return len(os.listdir("/proc/self/fd"))
