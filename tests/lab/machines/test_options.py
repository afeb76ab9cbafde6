"""Options that change how every virtio device looks or is driven, under a stock kernel and on both hypervisors."""

from collections.abc import Callable

import pytest

from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import empty_scratch
from tests.lab.hsm.hsm_scene import small_machine
from tests.lab.machines.small_machine import Rig, Run, assert_clean

pytestmark = pytest.mark.lab

Boot = Callable[..., Run]


@pytest.fixture(params=["kvm", "hsm"])
def boot(lab: OuterVm, request: pytest.FixtureRequest) -> Boot:
    """Boots the small machine, on KVM with legacy drivers, and checks that the guest and the emulated module, if it is
    there, are content.
    """
    scratch = empty_scratch("options", request.node.name)
    hsm = small_machine(lab, scratch) if request.param == "hsm" else None
    rig = hsm.rig if hsm else Rig(lab, debian_kernel(), scratch)

    def run(*options: str) -> Run:
        append = "" if hsm else "virtio_pci.force_legacy=1"
        done = (hsm or rig).boot(*options, lspci=True, disk=f"{rig.make_disk()},strict=on", append=append)
        if hsm:
            hsm.assert_clean(done)
            assert "IOEVENTFD" not in hsm.calls()
        else:
            assert_clean(done, rig.digest)
        assert done.one("modern") == ("0" if append else "2")
        return done

    return run


def test_guest_of_a_machine_that_polls_with_windows_and_one_message_works_and_sees_them(boot: Boot) -> None:
    """It never kicks. Linux has a driver for MSI-X and for lines, none for one message: what it shows is that it goes
    on by lines.
    """
    run = boot("--windows", "--virtio_msi", "--virtio_poll", "200000")
    assert [line for line in run.output.splitlines() if "strict: " in line] == []
    lines = run.report["lspci"]
    subsystems = [line.split("[")[-1] for line in lines if "Subsystem:" in line]
    assert "108e:0002]" in subsystems  # the disk, and not the console
    assert "1af4:0003]" in subsystems
    assert sum("MSI: Enable- Count=1/1 Maskable+ 64bit+" in line for line in lines) == 2
    assert not any("MSI-X" in line for line in lines)
    interrupts, messages = map(int, run.one("interrupts").split())
    assert (interrupts > 0, messages) == (True, 0)
