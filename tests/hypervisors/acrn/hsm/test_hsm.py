"""ACRN's kernel module: how a machine is made on it, its memory and its interrupts."""

import errno
import os
from collections.abc import Callable

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.hypervisors.acrn import hsm as plugin
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.acrn.hsm_rig import FLAT, MIB, arguments, open_vm, rig

MESSAGE = MsiMessage(addr=0xFEE0_0000, data=0x41)
EventFd = Callable[[], int]


# Creation


def creation(**options: object) -> tuple[object, ...]:
    """The argument of CREATE_VM: (…, name, flags, page, CPUs)."""
    with rig(**options) as r:
        return arguments(r.hsm, "CREATE_VM")[0]


def test_name_cpus_and_a_page_of_its_own_are_passed() -> None:
    *_, name, flags, page, affinity = creation(name="POST_STD_VM1", vcpus=3)
    assert (name, flags, affinity) == (b"POST_STD_VM1".ljust(16, b"\0"), 0, 0b111)
    assert isinstance(page, int)
    assert page % 4096 == 0


def test_affinity_is_by_place_in_the_hosts_table_not_by_id() -> None:
    assert creation(vcpus=2, cpu_affinity=(6, 2))[-1] == 0b1010


@pytest.mark.parametrize(
    ("options", "flags"),
    [({"enable_trusty": True}, 1), ({"rtvm": True}, 0b1000_0001_0110), ({}, 0)],
    ids=["trusty", "rtvm", "none"],
)
def test_flags(options: dict[str, bool], flags: int) -> None:
    assert creation(plugin_options=options)[-3] == flags


@pytest.mark.parametrize("vcpus", [0, 1, 3, 17])
def test_another_number_of_vcpus_than_asked_for_is_refused_and_the_vm_destroyed(vcpus: int) -> None:
    hsm = FakeHsm()
    hsm.vcpus = vcpus
    with pytest.raises(HostError, match=f"the hypervisor made {vcpus} vCPUs instead of 2; see the CPU affinity"):
        open_vm(hsm, vcpus=2)
    assert hsm.names()[-3:] == ["PAUSE_VM", "DESTROY_VM", "close"]
    hsm.close()


def test_memory_is_one_segment_a_region() -> None:
    with rig() as r:
        low, high = r.memory.regions
        assert arguments(r.hsm, "SET_MEMSEG") == [
            (0, 7, 0, low.hva, 4 * MIB),
            (0, 7, 1 << 32, high.hva, 2 * MIB),
        ]


def test_entry_state_is_vcpu_0s() -> None:
    with rig(vcpus=2) as r:
        r.boot()
        (fields,) = arguments(r.hsm, "SET_VCPU_REGS")
        assert (fields[0], fields[21], fields[7]) == (0, FLAT.rip, FLAT.rsi)


def test_two_machines_of_one_name_are_refused() -> None:
    hsm = FakeHsm()
    first = open_vm(hsm)
    with pytest.raises(HostError, match="a VM of that name runs already"):
        open_vm(hsm)
    first.close()
    hsm.close()


def test_memory_given_to_the_module_may_not_be_given_back_to_the_host() -> None:
    with rig() as r:
        assert r.vm.pins_memory


def test_more_memory_after_the_start_is_mapped() -> None:
    with rig() as r:
        r.boot()
        more = GuestMemory.allocate([MemoryRange(gpa=0x1000_0000, size=2 * MIB)])
        r.vm.map_memory(more.regions[0])
        r.hsm.vm.mmio_write(0x1000_0000, 4, 0x1234)
        assert more.read(0x1000_0000, 4) == b"\x34\x12\0\0"
        r.vm.close()
        more.close()


# The plugin


def test_hsm_and_vhm_are_built_in_and_rank_above_kvm() -> None:
    types = make_plugin_manager(entry_points=False).hypervisor_types()
    assert types["hsm"].rank > types["vhm"].rank > types["kvm"].rank
    assert (types["hsm"].ioapic_pins, types["hsm"].needs_pit) == (48, True)


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (errno.ENOENT, "no /dev/acrn_hsm: boot the ACRN hypervisor"),
        (errno.EACCES, "opening /dev/acrn_hsm: Permission denied: run as root"),
        (errno.EBUSY, "opening /dev/acrn_hsm: Device or resource busy"),
    ],
)
def test_probe_says_why_the_device_is_unusable(err: int, reason: str) -> None:
    def opener(path: str, flags: int) -> int:
        raise OSError(err, os.strerror(err))

    assert (plugin.unusable("/dev/acrn_hsm", opener) or "").startswith(reason)


def test_probe_of_a_usable_device_closes_it() -> None:
    fds = []

    def opener(path: str, flags: int) -> int:
        fds.append(os.open("/dev/null", flags))
        return fds[0]

    assert plugin.unusable("/dev/acrn_hsm", opener) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


def test_hooks_bind_for_this_hypervisor_only(eventfd: EventFd) -> None:
    manager = make_plugin_manager(entry_points=False)
    kick = IoEventFd(fd=eventfd(), space=Space.PIO, addr=0x2010, len=2, datamatch=1)
    call = IrqFd(fd=eventfd(), target=MESSAGE)
    with rig() as r:
        manager.ioeventfd(r.vm, kick, True)
        manager.irqfd(r.vm, call, True)
        assert r.sequence()[-2:] == ["IOEVENTFD", "IRQFD"]
    with pytest.raises(HostError, match="no plugin serves this hypervisor"):
        manager.ioeventfd(object(), kick, True)


# Interrupts


@pytest.mark.parametrize(
    ("gsi", "asserted", "operation"),
    [
        (4, True, 0),
        (4, False, 1),
        (9, True, 0),
        (2, True, 0),
        (15, False, 1),
        (16, True, 1),
        (16, False, 0),
        (47, True, 1),
    ],
)
def test_isa_lines_are_active_high_and_pci_lines_active_low(gsi: int, asserted: bool, operation: int) -> None:
    with rig() as r:
        r.vm.set_irq_line(gsi, asserted)
        assert arguments(r.hsm, "SET_IRQLINE") == [(gsi, operation)]


def test_reset_in_place_releases_asserted_lines() -> None:
    """The hypervisor's IOAPIC remembers levels across a reset."""
    with rig() as r:
        r.vm.set_irq_line(4, True)
        r.vm.set_irq_line(20, True)
        r.vm.set_irq_line(21, False)
        r.forget()
        r.vm.reset()
        assert arguments(r.hsm, "SET_IRQLINE") == [(4, 1), (20, 0)]


def test_message_to_no_local_apic_is_a_write_to_nowhere() -> None:
    with rig() as r:
        r.vm.inject_msi(MsiMessage(addr=0x1000, data=1))
        r.vm.inject_msi(MESSAGE)
        assert arguments(r.hsm, "INJECT_MSI") == [(0xFEE0_0000, 0x41)]
