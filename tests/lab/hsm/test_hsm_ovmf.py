"""Debian's firmware for virtual machines on the emulated HSM."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.images.bootdisk import boot_disk, unified_image
from tests.lab.hsm.hsm_scene import Hsm
from tests.lab.machines.firmware import FIRMWARE_LIMIT, IMAGE, Unhurried, assert_from_firmware, firmware

pytestmark = pytest.mark.lab


@pytest.fixture
def unhurried(lab: OuterVm, hsm: Hsm) -> Iterator[Hsm]:
    with firmware(lab):
        preloading: Any = hsm.rig.vm
        preloading.vm = Unhurried(preloading.vm)
        yield hsm


def test_firmware_in_one_file_starts_what_is_on_the_disk(unhurried: Hsm) -> None:
    def from_disk(initramfs: Path, command_line: str) -> Sequence[str]:
        program, disk = unhurried.scratch / "BOOTX64.EFI", unhurried.scratch / "boot"
        try:
            unified_image(program, kernel=unhurried.rig.kernel.image, initramfs=initramfs, command_line=command_line)
            boot_disk(disk, program)
        except HarnessUnavailable as e:
            pytest.skip(str(e))
        return ("-s", f"4,virtio-blk,b,{disk}", "--ovmf", str(IMAGE))

    run = unhurried.boot(boot=from_disk, timeout=FIRMWARE_LIMIT)
    unhurried.assert_clean(run, devices=3)
    assert_from_firmware(run)
