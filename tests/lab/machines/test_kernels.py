"""Stock kernels of other Debian releases under acrn-dm: what they do, and that they complain of nothing."""

import pytest

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import Kernel, suite_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import empty_scratch
from tests.lab.machines.small_machine import Rig, assert_clean, assert_quiet

pytestmark = pytest.mark.lab

SUITES = ("trixie", "trixie-backports", "sid")
UUID = "0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10"


@pytest.fixture(scope="module", params=SUITES)
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


def test_kernel_works_on_one_cpu_by_the_legacy_interface(rig: Rig) -> None:
    run = rig.boot("--cpus", "1", append="virtio_pci.force_legacy=1")
    assert_clean(run, rig.digest)
    assert (run.one("cpus"), run.one("modern")) == ("1", "0")
    assert_quiet(run, rig.kernel)


def test_kernel_works_on_two_cpus_reboots_and_reads_what_machine_it_is(rig: Rig) -> None:
    """Its own decoder has the names, and dmidecode finds the tables in its memory."""
    run = rig.boot("--cpus", "2", "--uuid", UUID, action="reboot", reboots=1, programs=["dmidecode"])
    assert_clean(run, rig.digest)
    assert run.report["boot"] == ["1", "2"]
    assert run.report["cpus"] == ["2", "2"]
    assert run.report["modern"] == ["2", "2"]
    assert run.report["dmi"] == [f"ACRN acrn_dm lab {UUID} lab "] * 2
    assert sum(line.strip() == f"UUID: {UUID}" for line in run.report["dmidecode"]) == 2
    assert not any("bad" in line.lower() or "out of spec" in line.lower() for line in run.report["dmidecode"])
    assert_quiet(run, rig.kernel)
