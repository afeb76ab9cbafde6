"""Debian's firmware for virtual machines starts the stock kernel, on KVM and on the emulated HSM."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.images.bootdisk import boot_disk, unified_image
from tests.lab.hsm.hsm_scene import Hsm, make_hsm
from tests.lab.machines.small_machine import Rig, Run, assert_clean

pytestmark = pytest.mark.lab

IMAGE = Path("/usr/share/ovmf/OVMF.fd")
CODE, VARIABLES = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
TICK = "/sys/module/kvm/parameters/min_timer_period_us"
SLOW_TICK_US, DEFAULT_TICK_US = 50_000, 200


@attrs.define(eq=False)
class Unhurried:
    """The outer VM, with firmware's timer ticks no closer than SLOW_TICK_US.

    EDK II writes CR8 at the end of each interrupt. Where the next one waits already, which with accesses as slow as
    these and a tick each 10 ms it soon does, QEMU 7.2's emulated SVM fails an assertion and ends.
    """

    vm: Any

    def spawn(self, argv: Sequence[str | Path], **how: Any) -> GuestProcess:
        set_tick(self.vm, SLOW_TICK_US)
        return self.vm.spawn(argv, **how)

    def run(self, *arguments: Any, **how: Any) -> Any:
        return self.vm.run(*arguments, **how)

    def alive(self) -> bool:
        return self.vm.alive()

    def restart(self) -> None:
        self.vm.restart()


def set_tick(vm: Any, microseconds: int) -> None:
    result = vm.run(f"echo {microseconds} > {TICK}")
    assert result.rc == 0, result.stderr


@pytest.fixture(autouse=True)
def _firmware(lab: OuterVm) -> Iterator[None]:
    if not all(file.exists() for file in (IMAGE, CODE, VARIABLES)):
        pytest.skip("no firmware: install ovmf")
    yield
    if lab.alive():
        set_tick(lab, DEFAULT_TICK_US)


@pytest.fixture
def machine(rig: Rig) -> Rig:
    rig.vm = Unhurried(rig.vm)  # type: ignore[assignment]
    return rig


@pytest.fixture
def on_hsm(lab: OuterVm, request: pytest.FixtureRequest) -> Hsm:
    hsm = make_hsm(lab, request)
    preloading: Any = hsm.rig.vm
    preloading.vm = Unhurried(preloading.vm)
    return hsm


def assert_from_firmware(run: Run) -> None:
    """The kernel was started by firmware, not by us."""
    assert run.report["firmware"] == ["efi"] * len(run.report["boot"])
    assert {dmi.split()[1] for dmi in run.report["dmi"]} == {"acrn_dm"}


def test_firmware_in_two_files_starts_the_kernel_that_it_is_given_on_all_processors_and_again_after_a_reboot(
    machine: Rig,
) -> None:
    firmware = ("--ovmf", f"code={CODE},vars={VARIABLES}", "-k", str(machine.kernel.image))
    run = machine.boot(*firmware, "--cpus", "2", "-m", "5G", action="reboot", reboots=1)
    assert_clean(run, machine.digest)
    assert_from_firmware(run)
    assert run.report["boot"] == ["1", "2"]
    assert run.report["cpus"] == ["2", "2"]
    assert all(4_900_000 < int(memory) <= 5_242_880 for memory in run.report["memory"])


def test_firmware_in_one_file_starts_what_is_on_the_disk_on_the_hsm(on_hsm: Hsm) -> None:
    def from_disk(initramfs: Path, command_line: str) -> Sequence[str]:
        program, disk = on_hsm.scratch / "BOOTX64.EFI", on_hsm.scratch / "boot"
        try:
            unified_image(program, kernel=on_hsm.rig.kernel.image, initramfs=initramfs, command_line=command_line)
            boot_disk(disk, program)
        except HarnessUnavailable as e:
            pytest.skip(str(e))
        return ("-s", f"4,virtio-blk,b,{disk}", "--ovmf", str(IMAGE))

    run = on_hsm.boot(boot=from_disk)
    on_hsm.assert_clean(run, devices=3)
    assert_from_firmware(run)
