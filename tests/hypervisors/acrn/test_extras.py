"""What only ACRN's own kernel has."""

import errno

import pytest

from acrn_dm.contract.hypervisor import VmEvent
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.acrn.hsm_rig import open_vm, rig


@pytest.mark.parametrize("call", ["SETUP_ASYNCIO", "SETUP_VM_EVENT_RING"])
@pytest.mark.parametrize("err", [errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EFAULT])
def test_machine_works_without_what_the_kernel_refuses(call: str, err: int) -> None:
    hsm = FakeHsm(acrn_kernel=True)
    hsm.fail(call, err)
    vm = open_vm(hsm)
    vm.close()
    hsm.close()


def test_triple_fault_is_told_from_a_power_off_by_its_event() -> None:
    with rig(acrn_kernel=True) as r:
        r.boot()
        for _ in range(200):  # the ring goes round
            r.hsm.vm.triple_fault()
        assert r.dispatch.events == [(VmEvent.TRIPLE_FAULT, "")] * 200
        assert r.dispatch.accesses == [("out", 0x404, 2, 0x3400)] * 200


def test_on_linuxs_kernel_a_triple_fault_is_a_power_off() -> None:
    with rig() as r:
        r.boot()
        r.hsm.vm.triple_fault()
        assert r.dispatch.events == []
        assert r.dispatch.accesses == [("out", 0x404, 2, 0x3400)]
