"""Options that change how every virtio device looks or is driven, under a stock kernel and on both hypervisors."""

from collections.abc import Callable

import pytest

from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import empty_scratch
from tests.lab.hsm.hsm_scene import Hsm, small_machine
from tests.lab.machines.small_machine import Rig, Run, assert_clean

pytestmark = pytest.mark.lab

Boot = Callable[..., Run]


@pytest.fixture(params=["kvm", "hsm"])
def boot(lab: OuterVm, request: pytest.FixtureRequest) -> Boot:
    """Boots the small machine and checks that the guest and, if it is there, the emulated module are content."""
    scratch = empty_scratch("options", request.node.name)
    machine: Rig | Hsm = Rig(lab, debian_kernel(), scratch) if request.param == "kvm" else small_machine(lab, scratch)

    def run(*options: str, lspci: bool = False) -> Run:
        done = machine.boot(*options, lspci=lspci)
        if isinstance(machine, Hsm):
            machine.assert_clean(done)
            if "--virtio_poll" in options:
                assert "IOEVENTFD" not in machine.calls()
        else:
            assert_clean(done, machine.digest)
        return done

    return run


def test_guest_of_a_machine_that_polls_never_kicks(boot: Boot) -> None:
    boot("--virtio_poll", "200000")


def test_windows_and_one_message_show_in_the_guest(boot: Boot) -> None:
    """Linux has a driver for MSI-X and for lines, none for one message: what it shows is that it goes on by lines."""
    run = boot("--windows", "--virtio_msi", lspci=True)
    lines = run.report["lspci"]
    subsystems = [line.split("[")[-1] for line in lines if "Subsystem:" in line]
    assert "108e:0002]" in subsystems  # the disk, and not the console
    assert "1af4:0003]" in subsystems
    assert sum("MSI: Enable- Count=1/1 Maskable+ 64bit+" in line for line in lines) == 2
    assert not any("MSI-X" in line for line in lines)
    interrupts, messages = map(int, run.one("interrupts").split())
    assert (interrupts > 0, messages) == (True, 0)
