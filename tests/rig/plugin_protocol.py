"""The protocol's test suite, once more: the ``hsm`` plugin as it is, or ``vhm`` with RIG_VHM, on the emulated module
with real vCPUs.

Collected by ``test_plugin`` alone, in a process of its own that has the rig preloaded.
"""

import os
from collections.abc import Iterator

import pytest

from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import Placement, place
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module.abi import HSM
from acrn_dm.hypervisors.acrn.module.vhm_abi import VHM
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from tests.hypervisors.conftest import eventfd  # noqa: F401
from tests.hypervisors.guests import Guest
from tests.hypervisors.protocol.test_accesses import *  # noqa: F403
from tests.hypervisors.protocol.test_interrupts import *  # noqa: F403
from tests.hypervisors.protocol.test_kicks import *  # noqa: F403
from tests.hypervisors.protocol.test_life_cycle import *  # noqa: F403


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    for mark in request.node.iter_markers("not_on"):
        if mark.args[0] == "hsm":
            pytest.skip(mark.args[1])
    if os.environ.get("RIG_VHM") and "triple_fault" in request.node.name:
        pytest.skip("it has no events: a triple fault is a power-off")
    options = HypervisorOptions(name="vm", vcpus=1, cpu_affinity=(0,))
    if os.environ.get("RIG_VHM"):
        vm = AcrnVm.open(VHM, options, Placement(affinity=0, apic_ids=()), open_device=_hsm.Device)
    else:
        vm = AcrnVm.open(HSM, options, place((0,), range(8)), open_device=_hsm.Device)
    made = Guest(vm)
    yield made
    made.close()
