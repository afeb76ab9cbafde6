"""The ``guest`` fixture: the same tests against each hypervisor that can be opened here; and eventfds."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import place
from acrn_dm.hypervisors.acrn.module.abi import HSM
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from acrn_dm.hypervisors.kvm.vm import KvmVm
from acrn_dm.hypervisors.sim.vm import SimVm
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.guests import Guest, HsmGuest, SimGuest


def open_kvm(vcpus: int = 1) -> KvmVm:
    """Open KVM even where it is slow: these guests are a few hundred instructions long."""
    try:
        return KvmVm.open(vcpus=vcpus, allow_slow=True)
    except HostError as e:
        pytest.skip(str(e))


def open_hsm(hsm: FakeHsm, *, vcpus: int = 1, **options: Any) -> AcrnVm:
    """Open ACRN on a stand-in of its kernel module; the host's CPUs have LAPIC ids 0, 2, 4 and so on."""
    ids = tuple(range(0, 2 * vcpus, 2))
    placement = place(ids, range(0, 32, 2))
    made = HypervisorOptions(name="vm", vcpus=vcpus, cpu_affinity=ids, **options)
    return AcrnVm.open(HSM, made, placement, open_device=hsm.open, sleep=hsm.slept.append)


@pytest.fixture(params=["sim", "hsm", pytest.param("kvm", marks=pytest.mark.process)])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Skips a test marked ``not_on`` this hypervisor; the mark says what is different there."""
    for mark in request.node.iter_markers("not_on"):
        if mark.args[0] == request.param:
            pytest.skip(mark.args[1])
    made: Guest
    if request.param == "sim":
        made = SimGuest(SimVm())
    elif request.param == "hsm":
        hsm = FakeHsm(acrn_kernel=True)
        made = HsmGuest(open_hsm(hsm), hsm)
    else:
        made = Guest(open_kvm())
    yield made
    made.close()


@pytest.fixture
def kvm_guest() -> Iterator[Guest]:
    made = Guest(open_kvm())
    yield made
    made.close()


@pytest.fixture
def eventfd() -> Iterator[Callable[[], int]]:
    """Makes eventfds, which are closed at the end."""
    made: list[int] = []

    def make() -> int:
        made.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)
