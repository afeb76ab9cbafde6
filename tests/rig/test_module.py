"""The emulated module keeps the kernel's rules, and tells on a client that does not."""

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from tests.rig import client as hsm
from tests.rig.client import Client, ioeventfd, irq_line, irqfd, memseg, vcpu_regs
from tests.rig.conftest import Rig, fails

pytestmark = pytest.mark.usefixtures("no_guest")

REGS = vcpu_regs(rip=0, cs=(0, 0, 0xFFFF, 0x9B))
MSI = 0xFEE0_0000


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def vm(rig: Rig) -> Iterator[Client]:
    """A created VM, which is given back if the test has not done so."""
    client = rig.open(vcpus=2)
    client.create()
    yield client
    if rig.trace()[-1]["call"] != "close":
        client.end()


def started(vm: Client) -> Client:
    vm.call(hsm.SET_VCPU_REGS, REGS)
    vm.call(hsm.CREATE_IOREQ_CLIENT)
    vm.call(hsm.START_VM)
    return vm


# Creation


def test_created_vm_has_the_vcpus_of_its_affinity_and_16_free_slots(rig: Rig) -> None:
    client = rig.open(vcpus=3)
    assert client.create(affinity=0b1011) == 3
    assert [client.state(i)[0] for i in range(16)] == [hsm.FREE] * 16
    client.end()


def test_vm_without_affinity_has_what_the_hypervisor_configured(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_VCPUS", "4")
    client = rig.open()
    assert client.create(affinity=0) == 4
    client.end()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"reserved": 1}, "CREATE_VM: a reserved field"),
        ({"name": b"sixteen bytes..."}, "CREATE_VM: the name"),
        ({"name": b""}, "CREATE_VM: the name"),
        ({"flags": 2}, "LAPIC passthrough without RT"),
    ],
)
def test_malformed_creation_is_einval_and_reported(rig: Rig, how: dict[str, int], text: str) -> None:
    client = rig.open()
    fails(errno.EINVAL, lambda: client.create(**how))  # type: ignore[arg-type]
    client.close()
    rig.expect(text)


def test_absent_processor_is_einval_and_the_users_fault(rig: Rig) -> None:
    client = rig.open()
    fails(errno.EINVAL, lambda: client.create(affinity=1 << 9))
    client.close()


def test_unaligned_request_page_is_reported(rig: Rig) -> None:
    client = rig.open()
    page = hsm.address_of(client.page) + 8
    client.call(hsm.CREATE_VM, bytearray(struct.pack("<4H16s3Q", 0, 0, 0, 0, b"rig", 0, page, 1)))
    client.end()
    rig.expect("the request page is not aligned")


def test_call_without_a_vm_is_einval_and_reported(rig: Rig) -> None:
    client = rig.open()
    fails(errno.EINVAL, lambda: client.call(hsm.PAUSE_VM))
    client.close()
    rig.expect("PAUSE_VM without a VM")


@pytest.mark.usefixtures("no_guest")
@pytest.mark.parametrize("stays", [False, True], ids=["ended", "could not be ended"])
def test_late_attach_is_einval_and_reported_where_the_client_had_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """No client waits for ever for a thread that it can't tell of its end."""
    client = rig.open()
    client.create()
    client.call(hsm.CREATE_IOREQ_CLIENT)
    client.call(hsm.PAUSE_VM)
    if stays:
        monkeypatch.setenv("RIG_FAIL", f"DESTROY_IOREQ_CLIENT={errno.EIO}")
        fails(errno.EIO, lambda: client.call(hsm.DESTROY_IOREQ_CLIENT))
    else:
        client.call(hsm.DESTROY_IOREQ_CLIENT)
    client.call(hsm.DESTROY_VM)
    fails(errno.EINVAL, client.attach)
    client.close()
    rig.expect(*([] if stays else ["ATTACH_IOREQ_CLIENT without a VM"]))


def test_second_creation_is_einval_and_reported(rig: Rig, vm: Client) -> None:
    fails(errno.EINVAL, vm.create)
    rig.expect("CREATE_VM twice")


def test_unknown_ioctl_is_enotty_and_reported(rig: Rig, vm: Client) -> None:
    fails(errno.ENOTTY, lambda: vm.call(0xA2FF))
    rig.expect("does not exist")


# Order


def test_destroying_what_was_not_paused_is_eperm_and_reported(rig: Rig, vm: Client) -> None:
    fails(errno.EPERM, lambda: vm.call(hsm.DESTROY_VM))
    rig.expect("DESTROY_VM of a VM that is created")


def test_starting_what_is_paused_is_eperm_and_reported(rig: Rig, vm: Client) -> None:
    vm.call(hsm.PAUSE_VM)
    fails(errno.EPERM, lambda: vm.call(hsm.START_VM))
    rig.expect("START_VM of a VM that is paused")


def test_resetting_what_runs_is_eperm_and_reported(rig: Rig, vm: Client) -> None:
    fails(errno.EPERM, lambda: started(vm).call(hsm.RESET_VM))
    rig.expect("RESET_VM of a VM that is running")


def test_registers_of_what_runs_are_eperm_and_reported(rig: Rig, vm: Client) -> None:
    fails(errno.EPERM, lambda: started(vm).call(hsm.SET_VCPU_REGS, REGS))
    rig.expect("SET_VCPU_REGS of a VM that is running")


def test_start_without_registers_and_client_is_reported(rig: Rig, vm: Client) -> None:
    vm.call(hsm.START_VM)
    vm.end()
    assert rig.violations()[:2] == [
        "START_VM without a request client: the first request has nowhere to go",
        "START_VM before SET_VCPU_REGS",
    ]
    rig.expect(*rig.violations())


def test_closing_what_runs_is_reported(rig: Rig, vm: Client) -> None:
    started(vm).close()
    rig.expect("close of a VM that is running")


def test_life_cycle_in_order_is_silent_and_traced(rig: Rig) -> None:
    client = started_again = rig.open()
    client.create()
    started(client)
    client.call(hsm.PAUSE_VM)
    client.call(hsm.CLEAR_VM_IOREQ)
    client.call(hsm.RESET_VM)
    started_again.call(hsm.SET_VCPU_REGS, REGS)
    started_again.call(hsm.START_VM)
    client.end()
    assert rig.calls() == [
        *("open", "CREATE_VM", "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM", "PAUSE_VM", "CLEAR_VM_IOREQ"),
        *("RESET_VM", "SET_VCPU_REGS", "START_VM", "PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"),
    ]


def test_injected_failure_hits_the_call_it_names(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_FAIL", f"PAUSE_VM@2={errno.EIO},SET_IRQLINE@*={errno.EPERM},open={errno.EACCES}")
    fails(errno.EACCES, rig.open)
    client = rig.open()
    client.create()
    client.call(hsm.PAUSE_VM)
    fails(errno.EIO, lambda: client.call(hsm.PAUSE_VM))
    for _ in range(2):
        fails(errno.EPERM, lambda: client.call(hsm.SET_IRQLINE, irq_line(1, 0)))
    client.end()


# Registers, memory, power


@pytest.mark.parametrize(
    ("regs", "err", "text"),
    [
        (vcpu_regs(rip=0, cs=(0, 0, 0, 0x9B), reserved=1), errno.EINVAL, "a reserved field"),
        (vcpu_regs(rip=0, cs=(0, 0, 0, 0x9B), vcpu=9), errno.EPERM, "no such vCPU"),
        (vcpu_regs(rip=0, cs=(0, 0, 0, 0x9B), cr0=1 << 31), errno.EPERM, "paging without protection"),
    ],
)
def test_malformed_registers_are_refused(rig: Rig, vm: Client, regs: bytes, err: int, text: str) -> None:
    fails(err, lambda: vm.call(hsm.SET_VCPU_REGS, regs))
    rig.expect(text)


def test_memory_is_taken_once_and_given_back_as_mmio(rig: Rig, vm: Client) -> None:
    memory = vm.set_memory(1 << 20)
    argument = memseg(1, 0, hsm.address_of(memory), 1 << 20)
    vm.call(hsm.UNSET_MEMSEG, argument)
    vm.set_memory(1 << 20)


def test_giving_memory_back_as_ram_is_einval(rig: Rig, vm: Client) -> None:
    memory = vm.set_memory(1 << 20)
    fails(errno.EINVAL, lambda: vm.call(hsm.UNSET_MEMSEG, memseg(0, 0, hsm.address_of(memory), 1 << 20)))
    rig.expect("UNSET_MEMSEG of type 0")


def test_overlapping_memory_is_reported(rig: Rig, vm: Client) -> None:
    vm.set_memory(1 << 20)
    vm.set_memory(1 << 20, gpa=0x1000)
    rig.expect("overlaps the segment at 0")


def test_too_many_small_pages_in_one_segment_are_enomem(rig: Rig, vm: Client) -> None:
    vm.set_memory(400 << 20)
    fails(errno.ENOMEM, lambda: vm.set_memory(420 << 20, gpa=1 << 32))


def test_memory_that_is_not_there_is_efault(rig: Rig, vm: Client) -> None:
    fails(errno.EFAULT, lambda: vm.call(hsm.SET_MEMSEG, memseg(0, 0, 0x1000, 0x1000)))
    rig.expect("not writable memory")


def test_processor_states_are_absent_by_default(vm: Client) -> None:
    fails(errno.EPERM, lambda: vm.call(hsm.PM_GET_CPU_STATE, bytearray(struct.pack("<Q", 0))))
    count = bytearray(struct.pack("<Q", 2))
    vm.call(hsm.PM_GET_CPU_STATE, count)
    assert count[0] == 0
    assert any(count[1:])  # the module's seven bytes of nothing in particular


def test_processor_states_are_told_when_known(vm: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_PM", "1")
    count = bytearray(struct.pack("<Q", 0))
    vm.call(hsm.PM_GET_CPU_STATE, count)
    assert count[0] == 2
    state = bytearray(struct.pack("<Q40x", 1 << 8 | 1))
    vm.call(hsm.PM_GET_CPU_STATE, state)
    assert struct.unpack_from("<Q", state) == (1600,)


# Interrupts and eventfds


def test_line_beyond_48_pins_is_eperm(rig: Rig, vm: Client) -> None:
    vm.call(hsm.SET_IRQLINE, irq_line(47, hsm.LINE_LOW))
    fails(errno.EPERM, lambda: vm.call(hsm.SET_IRQLINE, irq_line(48, hsm.LINE_LOW)))
    rig.expect("SET_IRQLINE: no such GSI")


def test_message_outside_the_apics_range_is_eperm(rig: Rig, vm: Client) -> None:
    vm.call(hsm.INJECT_MSI, struct.pack("<QQ", MSI, 0x40))
    fails(errno.EPERM, lambda: vm.call(hsm.INJECT_MSI, struct.pack("<QQ", 0x1000, 0x40)))
    rig.expect("INJECT_MSI: address 0x1000")


@pytest.mark.parametrize("length", [0, 3, 16])
def test_kick_of_another_length_is_einval(rig: Rig, vm: Client, eventfd: int, length: int) -> None:
    fails(errno.EINVAL, lambda: vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, length)))
    rig.expect(f"IOEVENTFD: length {length}")


def test_same_kick_twice_is_eexist(vm: Client, eventfd: int) -> None:
    vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=1))
    fails(errno.EEXIST, lambda: vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=3, data=1)))
    vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2))  # another space
    for addr in (0x1000, 0x1000):
        vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, addr, 2, flags=4))


def test_kick_on_what_is_no_eventfd_is_refused(vm: Client) -> None:
    with open("/dev/null") as file:
        fails(errno.EINVAL, lambda: vm.call(hsm.IOEVENTFD, ioeventfd(file.fileno(), 0x1000, 2)))
    fails(errno.EBADF, lambda: vm.call(hsm.IOEVENTFD, ioeventfd(99999, 0x1000, 2)))


def test_taking_away_a_kick_that_is_not_bound_is_reported(rig: Rig, vm: Client, eventfd: int) -> None:
    vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=4))
    rig.expect("IOEVENTFD: DEASSIGN of an eventfd that is not bound")


def test_second_call_on_one_eventfd_is_ebusy(vm: Client, eventfd: int) -> None:
    vm.call(hsm.IRQFD, irqfd(eventfd, MSI, 0x40))
    other = os.dup(eventfd)
    fails(errno.EBUSY, lambda: vm.call(hsm.IRQFD, irqfd(other, MSI, 0x41)))
    vm.call(hsm.IRQFD, irqfd(other, 0, 0, flags=1))  # found by the eventfd, not by its number
    vm.call(hsm.IRQFD, irqfd(eventfd, MSI, 0x41))
    os.close(other)


def test_asyncio_is_enotty_on_linux_and_a_ring_on_acrn(
    rig: Rig, vm: Client, eventfd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = hsm.mmap.mmap(-1, hsm.PAGE)
    address = hsm.address_of(ring)
    fails(errno.ENOTTY, lambda: vm.call(hsm.SETUP_ASYNCIO, address))
    monkeypatch.setenv("RIG_ACRN", "1")
    fails(errno.ENODEV, lambda: vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=8)))
    fails(errno.EPERM, lambda: vm.call(hsm.SETUP_ASYNCIO, address))
    struct.pack_into("<Q8I", ring, 0, 0x5AA57AA71AA13AA3, 504, 8, 0, 0, 0, 0, 0, 504 * 8)
    vm.call(hsm.SETUP_ASYNCIO, address)
    vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=8))
    vm.call(hsm.IOEVENTFD, ioeventfd(eventfd, 0x1000, 2, flags=8 | 4))
    rig.expect("asynchronous before SETUP_ASYNCIO", "SETUP_ASYNCIO: the page")
