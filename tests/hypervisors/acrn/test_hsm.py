"""ACRN's kernel module: what is asked of it, and the rules it keeps that KVM does not."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.irq import IntxLine, IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.processors import CState, GenericAddress, ProcessorPower, PState
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn import hsm as plugin
from acrn_dm.hypervisors.acrn.cpus import MADT, host_lapic_ids, parse_madt, place
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from acrn_dm.pci.eventfds import make_eventfd
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.acrn.hsm_rig import FLAT, MIB, Rig, open_vm, rig

MESSAGE = MsiMessage(addr=0xFEE0_0000, data=0x41)
EventFd = Callable[[], int]


@pytest.fixture
def eventfd() -> Iterator[EventFd]:
    made: list[int] = []

    def make() -> int:
        made.append(make_eventfd())
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def arguments(hsm: FakeHsm, name: str) -> list[tuple[int, ...]]:
    return [call.argument for call in hsm.calls if call.name == name]


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


def test_unmapping_ram_is_refused() -> None:
    with rig() as r:
        with pytest.raises(HostError) as caught:
            r.vm.unmap_memory(r.memory.regions[0])
        assert caught.value.err == errno.EINVAL
        assert "can't take RAM away" in str(caught.value)


def test_entry_state_is_vcpu_0s() -> None:
    with rig(vcpus=2) as r:
        r.boot()
        (fields,) = arguments(r.hsm, "SET_VCPU_REGS")
        assert (fields[0], fields[21], fields[7]) == (0, FLAT.rip, FLAT.rsi)


# CPUs


def madt(*entries: bytes) -> bytes:
    return bytes(44) + b"".join(entries)


def local_apic(apic_id: int, *, enabled: bool = True) -> bytes:
    return struct.pack("<BBBBI", 0, 8, 0, apic_id, enabled)


def test_lapic_ids_are_the_enabled_ones_in_table_order() -> None:
    ioapic = struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC0_0000, 0)
    table = madt(local_apic(4), ioapic, local_apic(7, enabled=False), local_apic(2))
    assert parse_madt(table) == (4, 2)


@pytest.mark.parametrize("table", [b"", bytes(44), madt(b"\0"), madt(bytes(8)), madt(local_apic(1)[:5])])
def test_broken_table_has_no_cpus(table: bytes) -> None:
    assert parse_madt(table) == ()


def test_table_that_cannot_be_read_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"reading .*no.*ENOENT.*run as root"):
        host_lapic_ids(tmp_path / "no")


def test_vcpus_have_the_ids_in_the_hypervisors_order() -> None:
    assert place((6, 2), (0, 2, 4, 6)).apic_ids == (2, 6)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "--cpu_affinity: ACRN needs the host CPUs of each virtual CPU; this host's LAPIC ids: 0,2,4"),
        ((2, 3), "--cpu_affinity: '2,3': no CPU has the LAPIC id 3; this host's LAPIC ids: 0,2,4"),
        ((2, 2), "--cpu_affinity: '2,2': a LAPIC id is given twice"),
    ],
)
def test_impossible_affinity_names_option_and_choice(ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place(ids, (0, 2, 4))
    assert str(caught.value) == message


def test_check_says_what_is_wrong_with_the_affinity_before_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "host_lapic_ids", lambda: (0, 2))
    assert plugin.check(HypervisorOptions(cpu_affinity=(2,))) == []
    assert "no CPU has the LAPIC id 9" in plugin.check(HypervisorOptions(cpu_affinity=(9,)))[0]


def test_this_hosts_table_can_be_read() -> None:
    if not MADT.exists():
        pytest.skip(f"no {MADT}")
    assert host_lapic_ids()


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


# Bindings


def kick(fd: int, addr: int, length: int = 2, match: int | None = None, space: Space = Space.PIO) -> IoEventFd:
    return IoEventFd(fd=fd, space=space, addr=addr, len=length, datamatch=match)


def test_kick_is_bound_by_exact_fields(eventfd: EventFd) -> None:
    with rig() as r:
        fd = eventfd()
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), True)
        r.vm.ioeventfd(kick(fd, 0x8000_3000, 2, None, Space.MMIO), True)
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), False)
        assert arguments(r.hsm, "IOEVENTFD")[:2] == [
            (fd, 3, 0x2010, 2, 0, 3),  # PIO and DATAMATCH
            (fd, 0, 0x8000_3000, 2, 0, 0),
        ]


def test_claimed_address_reads_0_and_swallows_other_values(eventfd: EventFd) -> None:
    with rig() as r:
        r.boot()
        fd = eventfd()
        r.vm.ioeventfd(kick(fd, 0x2010, 2, 3), True)
        r.hsm.vm.pio_write(0x2010, 2, 4)
        assert r.hsm.vm.pio_read(0x2010, 2) == 0
        assert drain(fd) == 0
        r.hsm.vm.pio_write(0x2010, 2, 3)
        assert drain(fd) == 1
        r.hsm.vm.pio_write(0x2010, 4, 3)  # longer than the range: not claimed
        assert r.dispatch.accesses == [("out", 0x2010, 4, 3)]


def test_unregistering_one_kick_of_an_eventfd_keeps_the_others(eventfd: EventFd) -> None:
    """The module would remove the one that was registered first."""
    with rig() as r:
        r.boot()
        fd = eventfd()
        first, second = kick(fd, 0x2010, 2, 0), kick(fd, 0x2110, 2, 0)
        r.vm.ioeventfd(first, True)
        r.vm.ioeventfd(second, True)
        r.vm.ioeventfd(second, False)
        r.hsm.vm.pio_write(0x2010, 2, 0)
        r.hsm.vm.pio_write(0x2110, 2, 0)
        assert drain(fd) == 1
        assert r.dispatch.accesses == [("out", 0x2110, 2, 0)]
        r.vm.ioeventfd(first, False)
        assert r.hsm.vm.kicks == []


def test_bindings_are_taken_away_by_a_reset_in_place(eventfd: EventFd) -> None:
    with rig() as r:
        r.boot()
        r.vm.ioeventfd(kick(eventfd(), 0x2010), True)
        r.vm.irqfd(IrqFd(fd=eventfd(), target=MESSAGE), True)
        r.forget()
        r.vm.reset()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "IOEVENTFD", "IRQFD", "RESET_VM"]
        assert (r.hsm.vm.kicks, r.hsm.vm.calls) == ([], {})


def test_call_to_a_line_is_refused(eventfd: EventFd) -> None:
    with rig() as r:
        with pytest.raises(HostError) as caught:
            r.vm.irqfd(IrqFd(fd=eventfd(), target=IntxLine(gsi=17)), True)
        assert caught.value.err == errno.EINVAL
        assert "not to a line" in str(caught.value)


def test_interrupts_by_eventfd_are_delivered_each_time_and_the_count_stays(eventfd: EventFd) -> None:
    with rig() as r:
        fd = eventfd()
        r.vm.irqfd(IrqFd(fd=fd, target=MESSAGE), True)
        for wanted in range(1, 4):
            os.eventfd_write(fd, 1)
            with r.hsm.changed:
                assert r.hsm.changed.wait_for(lambda wanted=wanted: len(r.hsm.vm.msis) == wanted, 10)
        assert drain(fd) == 3


# What only ACRN's own kernel has


def flags_of_kicks(r: Rig) -> list[int]:
    return [argument[1] for argument in arguments(r.hsm, "IOEVENTFD")]


def test_kicks_are_asynchronous_where_any_write_kicks(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        modern, legacy = kick(eventfd(), 0x8000_3000, 2, None, Space.MMIO), kick(eventfd(), 0x2010, 2, 1)
        for binding in (modern, legacy):
            r.vm.ioeventfd(binding, True)
            r.vm.ioeventfd(binding, False)
        assert flags_of_kicks(r) == [8, 8 | 4, 3, 3 | 4]


@pytest.mark.parametrize("err", [errno.ENODEV, errno.ENOSPC, errno.EINVAL, errno.EPERM])
def test_kick_that_cannot_be_asynchronous_is_an_ordinary_one(eventfd: EventFd, err: int) -> None:
    with rig(acrn_kernel=True) as r:
        r.hsm.fail("IOEVENTFD", err)
        binding = kick(eventfd(), 0x8000_3000, 2, None, Space.MMIO)
        r.vm.ioeventfd(binding, True)
        r.vm.ioeventfd(binding, False)
        assert flags_of_kicks(r) == [8, 0, 4]


def modern_kick(n: int, eventfd: EventFd) -> IoEventFd:
    return kick(eventfd(), 0x8000_3000 + 4 * n, 2, None, Space.MMIO)


def test_kick_past_what_the_hypervisor_has_room_for_is_an_ordinary_one_and_says_so(
    eventfd: EventFd, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(acrn_kernel=True) as r:
        for n in range(67):
            r.vm.ioeventfd(modern_kick(n, eventfd), True)
        assert flags_of_kicks(r) == [8] * 64 + [0] * 3
        assert r.hsm.violations == []
    said = [m for m in caplog.messages if "asynchronous kicks are all in use" in m]
    assert len(said) == 1
    assert "0x80003100" in said[0]


def test_place_of_an_asynchronous_kick_that_leaves_is_used_again(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        kicks = [modern_kick(n, eventfd) for n in range(66)]
        for binding in kicks[:65]:
            r.vm.ioeventfd(binding, True)
        r.vm.ioeventfd(kicks[0], False)
        r.vm.ioeventfd(kicks[65], True)
        assert flags_of_kicks(r)[-2:] == [8 | 4, 8]


def test_asynchronous_kicks_count_anew_after_a_reset(eventfd: EventFd) -> None:
    with rig(acrn_kernel=True) as r:
        r.boot()
        for _ in range(2):
            for n in range(64):
                r.vm.ioeventfd(modern_kick(n, eventfd), True)
            r.vm.pause()
            r.vm.reset()
        assert set(flags_of_kicks(r)) == {8, 8 | 4}
        assert r.hsm.violations == []


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


# Power states

PX = struct.pack("<6Q", 2400, 15000, 10, 11, 0x1800, 0x1801)
CX = struct.pack("<BBBBQ B3x I 4x Q", 0x7F, 1, 2, 3, 0x60, 2, 151, 500)


def power(states: dict[tuple[int, int], dict[int, bytes]], vcpus: int = 1) -> tuple[ProcessorPower, ...]:
    with rig(vcpus=vcpus) as r:
        r.hsm.states = states
        return r.vm.processor_power()


def test_power_states_are_read_one_by_one_idle_ones_from_1() -> None:
    states = {(0, 0): {0: b"\2garbage"}, (0, 1): {0: PX, 1: PX}, (0, 2): {0: b"\1"}, (0, 3): {1: CX}}
    register = GenericAddress(space=0x7F, bit_width=1, bit_offset=2, access_size=3, address=0x60)
    pstate = PState(
        frequency_mhz=2400, power_mw=15000, transition_us=10, bus_master_us=11, control=0x1800, status=0x1801
    )
    cstate = CState(register=register, type=2, latency_us=151, power_mw=500)
    assert power(states) == (ProcessorPower(pstates=(pstate, pstate), cstates=(cstate,)),)


def test_hypervisor_that_refuses_all_gives_nothing() -> None:
    assert power({}, vcpus=2) == ()


def test_count_0_of_performance_states_is_continuous() -> None:
    assert power({(0, 0): {0: b"\0"}}) == (ProcessorPower(continuous=True),)


def test_table_with_a_gap_is_none() -> None:
    states = {(0, 0): {0: b"\3"}, (0, 1): {0: PX, 2: PX}, (0, 2): {0: b"\2"}, (0, 3): {1: CX}}
    assert power(states) == ()


@pytest.mark.parametrize("err", [errno.EFAULT, errno.ENOMEM])
def test_failure_to_ask_for_power_states_is_logged(err: int, caplog: pytest.LogCaptureFixture) -> None:
    with rig() as r:
        r.hsm.fail("PM_GET_CPU_STATE", err)
        assert r.vm.processor_power() == ()
    assert errno.errorcode[err] in caplog.text


def test_memory_given_to_the_module_may_not_be_given_back_to_the_host() -> None:
    with rig() as r:
        assert r.vm.pins_memory


def test_two_machines_of_one_name_are_refused() -> None:
    hsm = FakeHsm()
    first = open_vm(hsm)
    with pytest.raises(HostError, match="a VM of that name runs already"):
        open_vm(hsm)
    first.close()
    hsm.close()


def test_more_memory_after_the_start_is_mapped() -> None:
    with rig() as r:
        r.boot()
        more = GuestMemory.allocate([MemoryRange(gpa=0x1000_0000, size=2 * MIB)])
        r.vm.map_memory(more.regions[0])
        r.hsm.vm.mmio_write(0x1000_0000, 4, 0x1234)
        assert more.read(0x1000_0000, 4) == b"\x34\x12\0\0"
        r.vm.close()
        more.close()
