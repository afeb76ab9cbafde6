"""The interface of 2018: its calls and structures, on a stand-in that answers only those."""

import errno
import struct
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.acrn.module.vhm_abi import VHM
from acrn_dm.hypervisors.acrn.vm import AcrnVm
from tests.hypervisors.acrn import fake_abi
from tests.hypervisors.acrn.fake_acrn_vm import HANDLED, PROCESSING, SLOT, FakeVm
from tests.hypervisors.acrn.fake_hsm import FakeDevice, FakeHsm
from tests.hypervisors.acrn.hsm_rig import Rig, last_access, make_rig

CLIENT = 5  # the number of our client; the module has others
NAMES = {
    0x00: "GET_API_VERSION", 0x10: "CREATE_VM", 0x11: "DESTROY_VM", 0x12: "START_VM", 0x13: "PAUSE_VM",
    0x14: "CREATE_VCPU", 0x15: "RESET_VM", 0x16: "SET_VCPU_REGS", 0x23: "INJECT_MSI", 0x25: "SET_IRQLINE",
    0x31: "NOTIFY_REQUEST_FINISH", 0x32: "CREATE_IOREQ_CLIENT", 0x33: "ATTACH_IOREQ_CLIENT",
    0x34: "DESTROY_IOREQ_CLIENT", 0x35: "CLEAR_VM_IOREQ", 0x41: "SET_MEMSEG", 0x60: "PM_GET_CPU_STATE",
    0x70: "IOEVENTFD", 0x71: "IRQFD",
}  # fmt: skip
NUMBERS = {0x4300_0000 | number: name for number, name in NAMES.items()}


class VhmVm(FakeVm):
    """Requests carry the number of the client they are for."""

    def _set(self, at: int, value: int) -> None:
        if at % SLOT == HANDLED and value == 0:
            value = CLIENT
        super()._set(at, value)


class FakeVhm(FakeHsm):
    """The module of 2018 by the rules of today's, with the differences put in between."""

    make_vm = VhmVm
    real_time = 1 << 5

    def __init__(self) -> None:
        super().__init__()
        self.version = (1, 0)
        self.created_vcpus: list[int] = []

    def ioctl(self, device: FakeDevice, request: int, argument: int | bytearray) -> int:
        name = NUMBERS.get(request)
        if name is None:
            return 0  # as the module of 2018 did
        today = {name: number for number, name in fake_abi.NUMBERS.items()}
        if name == "GET_API_VERSION":
            self.log(name)
            struct.pack_into("<II", argument, 0, *self.version)
            return -self._due(name)
        if name == "CREATE_VCPU":
            self.log(name, struct.unpack("<HHI", argument))
            self.created_vcpus.append(struct.unpack("<HHI", argument)[0])
            return -self._due(name)
        result = super().ioctl(device, today[name], self._translated(name, argument))
        if name == "CREATE_IOREQ_CLIENT" and result == 0:
            return CLIENT
        if name == "ATTACH_IOREQ_CLIENT" and result == -errno.ENODEV:
            return 1
        return result

    def _translated(self, name: str, argument: Any) -> Any:
        if name in ("ATTACH_IOREQ_CLIENT", "DESTROY_IOREQ_CLIENT"):
            assert argument == CLIENT
        if name == "NOTIFY_REQUEST_FINISH":
            client, vcpu = struct.unpack("<iI", argument)
            assert client == CLIENT
            return bytearray(struct.pack("<HHI", self.vm.vmid, 0, vcpu))
        if name == "SET_MEMSEG":
            kind, using_vma, gpa, hva, length, rights = struct.unpack("<IIQQQI4x", argument)
            assert (kind, using_vma, rights) == (0, 1, 7)
            return bytearray(struct.pack("<IIQQQ", 0, rights, gpa, hva, length))
        if name == "SET_VCPU_REGS":
            assert argument[296:] == bytes(8)
            return argument[:296]
        return argument

    def _create(self, device: FakeDevice, argument: Any) -> int:
        self.vcpus = 2
        return super()._create(device, argument)


def open_rig(hsm: FakeVhm, **options: Any) -> Rig:
    return make_rig(hsm, abi=VHM, vcpus=2, **options)


@pytest.fixture
def vhm() -> FakeVhm:
    return FakeVhm()


def test_life_in_the_calls_of_2018(vhm: FakeVhm) -> None:
    r = open_rig(vhm)
    r.boot()
    r.hsm.vm.pio_write(0x80, 1, 7)
    r.dispatch.answers[0x500] = 0x55
    assert r.hsm.vm.pio_read(0x500, 1, vcpu=1) == 0x55
    r.vm.reset()
    r.boot()
    r.vm.close()
    r.memory.close()
    vhm.close()
    assert vhm.created_vcpus == [0, 1]
    assert vhm.names("ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH") == [
        "open", "GET_API_VERSION", "CREATE_VM", "CREATE_VCPU", "CREATE_VCPU", "SET_MEMSEG", "SET_MEMSEG",
        "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM", "PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM",
        "SET_VCPU_REGS", "START_VM", "PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close",
    ]  # fmt: skip


def test_vm_has_the_default_uuid_and_the_flags_of_then(vhm: FakeVhm) -> None:
    r = open_rig(vhm, plugin_options={"rtvm": True, "enable_trusty": True})
    *_, identity, flags, _, _ = r.hsm.vm.creation
    r.vm.close()
    r.memory.close()
    assert identity.hex() == "d279543825d611e8864ecb7a18b34643"
    assert flags == 0b10_0111  # real time was bit 5


def test_request_of_another_client_is_left_alone(vhm: FakeVhm) -> None:
    r = open_rig(vhm)
    r.boot()
    vm = r.hsm.vm
    with vhm.changed:
        struct.pack_into("<II", vm.slots, SLOT + HANDLED, CLIENT + 1, PROCESSING)
    vm.pio_write(0x80, 1, 7)
    assert r.dispatch.accesses == [("out", 0x80, 1, 7)]
    r.vm.close()
    r.memory.close()


def test_another_version_is_refused(vhm: FakeVhm) -> None:
    vhm.version = (2, 1)
    with pytest.raises(HostError, match=r"GET_API_VERSION: 2.1, not 1.0; try hsm"):
        open_rig(vhm)
    assert vhm.slept == []
    vhm.close()


def test_failing_vcpu_destroys_the_vm(vhm: FakeVhm) -> None:
    vhm.fail("CREATE_VCPU", errno.EPERM, after=1, times=30)
    with pytest.raises(HostError, match=r"CREATE_VCPU: .*EPERM"):
        open_rig(vhm)
    vhm.close()


def test_end_while_a_vcpu_waits_is_orderly(vhm: FakeVhm) -> None:
    r = open_rig(vhm)
    r.boot()
    r.dispatch.hold = True

    thread = last_access(lambda: r.hsm.vm.pio_write(0xCF9, 1, 6))
    r.dispatch.wait_for(lambda: bool(r.dispatch.accesses))
    r.vm.close()
    thread.join()
    r.memory.close()
    vhm.close()


def test_ids_of_the_vcpus_count_from_0(vhm: FakeVhm) -> None:
    r = open_rig(vhm)
    vm: AcrnVm = r.vm
    assert vm.apic_ids == (0, 1)
    assert attrs.asdict(vm.options)["cpu_affinity"] == (0, 2)  # which the module of 2018 can't be told
    vm.close()
    r.memory.close()
