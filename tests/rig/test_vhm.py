"""The emulated module of 2018: other numbers, a version, vCPUs one by one, clients with a number."""

import errno
import struct
from collections.abc import Iterator

import pytest

from tests.patience import comes_true
from tests.rig.client import PROCESSING, Client, address_of
from tests.rig.conftest import Rig, fails

pytestmark = pytest.mark.usefixtures("no_guest")

BASE = 0x43 << 24
GET_API_VERSION = BASE
CREATE_VM, DESTROY_VM, START_VM, PAUSE_VM, CREATE_VCPU = (BASE | n for n in range(0x10, 0x15))
SET_VCPU_REGS, NOTIFY_REQUEST_FINISH = BASE | 0x16, BASE | 0x31
CREATE_IOREQ_CLIENT, ATTACH_IOREQ_CLIENT, DESTROY_IOREQ_CLIENT = BASE | 0x32, BASE | 0x33, BASE | 0x34
SET_MEMSEG = BASE | 0x41
UUID = bytes(range(240, 256))
REGS = bytearray(304)


def creation(vm: Client, *, uuid: bytes = UUID, reserved: int = 0) -> bytearray:
    return bytearray(struct.pack("<4H16s3Q", 0, 0, 0, 0, uuid, 0, address_of(vm.page), reserved))


@pytest.fixture
def module(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("RIG_VHM", "1")
    return Client(rig.path, 2, b"/dev/acrn_vhm")


@pytest.fixture
def vm(module: Client, rig: Rig) -> Iterator[Client]:
    """Created, with two vCPUs."""
    module.call(CREATE_VM, creation(module))
    for vcpu in range(2):
        module.call(CREATE_VCPU, struct.pack("<HHI", vcpu, 0, 0))
    yield module
    module.call(PAUSE_VM)
    module.call(DESTROY_VM)
    module.close()


def test_version_is_1_0(module: Client) -> None:
    answer = bytearray(8)
    module.call(GET_API_VERSION, answer)
    assert struct.unpack("<II", answer) == (1, 0)
    module.close()


def test_trace_has_the_uuid_in_hexadecimal(rig: Rig, vm: Client) -> None:
    (created,) = [row for row in rig.trace() if row["call"] == "CREATE_VM"]
    assert created["uuid"] == UUID.hex()


def test_todays_node_is_not_there(rig: Rig, module: Client) -> None:
    fails(errno.ENOENT, rig.open)
    module.close()


def test_number_that_does_not_exist_gives_0_and_is_reported(rig: Rig, vm: Client) -> None:
    assert vm.call(BASE | 0x7F) == 0
    rig.expect("does not exist in 2018")


def test_vcpus_come_in_order(rig: Rig, vm: Client) -> None:
    fails(errno.EINVAL, lambda: vm.call(CREATE_VCPU, struct.pack("<HHI", 3, 0, 0)))
    rig.expect("vCPUs come in order")


def test_vm_without_a_uuid_is_refused(rig: Rig, module: Client) -> None:
    fails(errno.EINVAL, lambda: module.call(CREATE_VM, creation(module, uuid=bytes(16))))
    rig.expect("no UUID")
    module.close()


def test_todays_affinity_is_a_reserved_field(module: Client) -> None:
    fails(errno.EINVAL, lambda: module.call(CREATE_VM, creation(module, reserved=1)))
    module.close()


def test_registers_have_a_reserved_tail(rig: Rig, vm: Client) -> None:
    fails(errno.EINVAL, lambda: vm.call(SET_VCPU_REGS, REGS[:296] + b"\1" + bytes(7)))
    rig.expect("the last reserved field")


def test_memory_is_named_by_its_address_in_the_process(rig: Rig, vm: Client) -> None:
    memory = address_of(vm.page)
    fails(errno.EINVAL, lambda: vm.call(SET_MEMSEG, struct.pack("<IIQQQI4x", 0, 0, 0, memory, 4096, 7)))
    rig.expect("only RAM by its address")


def test_requests_carry_the_clients_number_and_end_with_it(rig: Rig, vm: Client) -> None:
    """Each vCPU has one request, its last."""
    client = vm.call(CREATE_IOREQ_CLIENT)
    assert client > 0
    vm.call(SET_VCPU_REGS, REGS)
    vm.call(START_VM)
    vm.call(ATTACH_IOREQ_CLIENT, client)
    waiting = [0, 1]
    assert comes_true(lambda: all(vm.state(vcpu) == (PROCESSING, client) for vcpu in waiting))
    for call, argument in (
        (NOTIFY_REQUEST_FINISH, struct.pack("<iI", client + 1, waiting[0])),
        (ATTACH_IOREQ_CLIENT, client + 1),
        (DESTROY_IOREQ_CLIENT, client + 1),
    ):
        fails(errno.EINVAL, lambda call=call, argument=argument: vm.call(call, argument))
    rig.expect(*(f"client {client + 1}, this is {client}",) * 3)
    vm.call(NOTIFY_REQUEST_FINISH, struct.pack("<iI", client, waiting[0]))
    vm.call(DESTROY_IOREQ_CLIENT, client)
    assert vm.call(ATTACH_IOREQ_CLIENT, client) == 1
