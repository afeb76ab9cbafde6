"""The ``guest`` fixture: the same tests against each hypervisor that can be opened here."""

from collections.abc import Iterator

import pytest

from acrn_dm.errors import HostError
from acrn_dm.hypervisors.kvm import KvmVm
from acrn_dm.hypervisors.sim import SimVm
from tests.hypervisors.guests import Guest, SimGuest


def open_kvm(vcpus: int = 1) -> KvmVm:
    """Open KVM even where it is slow: these guests are a few hundred instructions long."""
    try:
        return KvmVm.open(vcpus=vcpus, allow_slow=True)
    except HostError as e:
        pytest.skip(str(e))


@pytest.fixture(params=["sim", pytest.param("kvm", marks=pytest.mark.process)])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    made = SimGuest(SimVm()) if request.param == "sim" else Guest(open_kvm())
    yield made
    made.close()


@pytest.fixture
def kvm_guest() -> Iterator[Guest]:
    made = Guest(open_kvm())
    yield made
    made.close()
