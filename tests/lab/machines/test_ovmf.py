"""Debian's firmware for virtual machines starts the stock kernel; see ``tests/lab/hsm/test_hsm_ovmf``, too."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.machines.firmware import CODE, FIRMWARE_LIMIT, VARIABLES, Unhurried, assert_from_firmware, firmware
from tests.lab.machines.small_machine import Rig, assert_clean

pytestmark = pytest.mark.lab


@pytest.fixture
def machine(lab: OuterVm, rig: Rig) -> Iterator[Rig]:
    with firmware(lab):
        rig.vm = Unhurried(rig.vm)  # type: ignore[assignment]
        yield rig


def test_firmware_in_two_files_starts_the_kernel_that_it_is_given_on_all_processors_and_again_after_a_reboot(
    machine: Rig,
) -> None:
    options = ("--ovmf", f"code={CODE},vars={VARIABLES}", "-k", str(machine.kernel.image))
    run = machine.boot(*options, "--cpus", "2", "-m", "5G", action="reboot", reboots=1, timeout=FIRMWARE_LIMIT)
    assert_clean(run, machine.digest)
    assert_from_firmware(run)
    assert run.report["boot"] == ["1", "2"]
    assert run.report["cpus"] == ["2", "2"]
    assert all(4_900_000 < int(memory) <= 5_242_880 for memory in run.report["memory"])
