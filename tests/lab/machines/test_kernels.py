"""Stock kernels of other Debian releases under acrn-dm: what they do, and that they complain of nothing."""

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import Kernel, suite_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import empty_scratch
from tests.lab.machines.small_machine import Rig, assert_clean, assert_quiet

pytestmark = pytest.mark.lab

# CPUs, addition to the command line, reboots. Each kernel in one shape, so that all shapes are seen; Debian 12's, which
# is the oldest, is seen in each of them, in other tests. The oldest and the newest reboot.
SHAPES = {"trixie": ("2", "", 0), "trixie-backports": ("1", "virtio_pci.force_legacy=1", 0), "sid": ("2", "", 1)}
UUID = "0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10"


@pytest.fixture(scope="module", params=SHAPES)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """The newest of that suite."""
    try:
        return suite_kernel(request.param)
    except HarnessUnavailable as e:
        pytest.skip(f"no kernel of {request.param}: {e}")


@pytest.fixture
def rig(lab: OuterVm, kernel: Kernel, request: pytest.FixtureRequest) -> Rig:
    if not lab.alive():
        lab.restart()
    return Rig(lab, kernel, empty_scratch("kernels", request.node.name))


def test_kernel_works_and_reads_what_machine_it_is(rig: Rig, request: pytest.FixtureRequest) -> None:
    """Its own decoder has the names, and dmidecode finds the tables in its memory."""
    cpus, append, reboots = SHAPES[request.node.callspec.params["kernel"]]
    options = ("--cpus", cpus, "--uuid", UUID)
    run = rig.boot(*options, append=append, action="reboot", reboots=reboots, programs=["dmidecode"])
    assert_clean(run, rig.digest)
    boots = reboots + 1
    assert run.report["boot"] == ["1", "2"][:boots]
    assert run.report["cpus"] == [cpus] * boots
    assert run.report["modern"] == ["0" if append else "2"] * boots
    assert run.report["dmi"] == [f"ACRN acrn_dm lab {UUID} lab "] * boots
    assert sum(line.strip() == f"UUID: {UUID}" for line in run.report["dmidecode"]) == boots
    assert not any("bad" in line.lower() or "out of spec" in line.lower() for line in run.report["dmidecode"])
    assert_quiet(run, rig.kernel)
