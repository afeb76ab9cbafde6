"""What only KVM has: real vCPUs and the firmware's part of their state. Needs a /dev/kvm that opens."""

import errno
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.contract.registers import BootRegisters, Segment
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.kvm import plugin as kvm
from acrn_dm.hypervisors.kvm import vcpus
from acrn_dm.hypervisors.kvm.module._system import Kvm
from acrn_dm.hypervisors.kvm.vm import KvmVm
from acrn_dm.hypervisors.sim.vm import SimVm
from tests.hypervisors.conftest import open_kvm
from tests.hypervisors.guest_program import CODE, In, Out, Raw, Spin, Store
from tests.hypervisors.guests import Guest, Recorder

pytestmark = pytest.mark.process

PORT = 0x500
WINDOW = 0xD000_0000
ICR_LOW, ICR_HIGH = 0xFEE0_0300, 0xFEE0_0310
READY = Out(0x5FF, 1, 1)


@pytest.fixture
def two_vcpus() -> Iterator[Guest]:
    guest = Guest(open_kvm(vcpus=2))
    yield guest
    guest.close()


def cpuid(leaf: int, register: str, subleaf: int = 0) -> Raw:
    """EAX of the result is the *register* of a CPUID leaf."""
    move = {"eax": b"\x89\xc0", "ebx": b"\x89\xd8", "ecx": b"\x89\xc8", "edx": b"\x89\xd0"}[
        register
    ]  # mov eax, register
    return Raw(b"\xb8" + struct.pack("<I", leaf) + b"\xb9" + struct.pack("<I", subleaf) + b"\x0f\xa2" + move)


def rdmsr(index: int) -> Raw:
    """EAX is the low half of an MSR."""
    return Raw(b"\xb9" + struct.pack("<I", index) + b"\x0f\x32\x89\xc0")  # mov ecx; rdmsr; mov eax, eax


# Accesses


def test_store_across_a_page_is_split_into_aligned_powers_of_two(kvm_guest: Guest) -> None:
    kvm_guest.start(Store(WINDOW + 0xFFD, 8, 0x8877_6655_4433_2211))  # KVM hands out 3 and 5 bytes
    assert kvm_guest.finish() == [
        ("store", WINDOW + 0xFFD, 1, 0x11),
        ("store", WINDOW + 0xFFE, 2, 0x3322),
        ("store", WINDOW + 0x1000, 4, 0x7766_5544),
        ("store", WINDOW + 0x1004, 1, 0x88),
    ]


def test_answer_wider_than_asked_is_cut(kvm_guest: Guest) -> None:
    kvm_guest.recorder.answers[PORT] = -1
    kvm_guest.start(In(PORT, 1))
    kvm_guest.finish()
    assert kvm_guest.results() == [0xFF]


def test_string_in_asks_dispatch_for_every_element(kvm_guest: Guest) -> None:
    # mov rdi, 0x200000; mov ecx, 3; mov edx, PORT; rep insw; mov rax, [0x200000]
    code = "48c7c700002000 b903000000 ba00050000 f3666d 488b042500002000"
    kvm_guest.recorder.answers[PORT] = 0xBEEF
    kvm_guest.start(Raw(bytes.fromhex(code)))
    assert kvm_guest.finish() == [("in", PORT, 2)] * 3
    assert kvm_guest.results() == [0xBEEF_BEEF_BEEF]


def test_dispatch_that_raises_ends_the_vcpu_with_an_event(kvm_guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    def broken(access: tuple[Any, ...]) -> None:
        raise ZeroDivisionError("device bug")

    kvm_guest.recorder.on_access = broken
    kvm_guest.start(Out(PORT, 1, 1), Spin())
    kvm_guest.wait_for(lambda: bool(kvm_guest.recorder.events))
    ((event, detail),) = kvm_guest.recorder.events
    assert event is VmEvent.INTERNAL_ERROR
    assert "device bug" in detail
    assert "an access of the guest failed" in caplog.text


# Pause


def test_pause_during_an_access_completes_the_instruction(kvm_guest: Guest) -> None:
    inside, leave = threading.Event(), threading.Event()

    def device(access: tuple[Any, ...]) -> None:
        inside.set()
        leave.wait()

    vm = kvm_guest.vm
    assert isinstance(vm, KvmVm)
    kvm_guest.recorder.on_access = device
    kvm_guest.recorder.answers[PORT] = 0x99
    kvm_guest.load()
    kvm_guest.memory.write(CODE, bytes.fromhex("ba00050000 ec ebfe"))  # mov edx, PORT; in al, dx; jmp $
    vm.run(kvm_guest.recorder)
    inside.wait()
    pauser = threading.Thread(target=vm.pause)
    pauser.start()
    leave.set()
    pauser.join()
    registers = vm._vcpus[0].registers()  # type: ignore[attr-defined]
    assert (registers["rip"], registers["rax"]) == (CODE + 6, 0x99)


def test_no_stop_request_is_lost_in_a_thousand_pauses(kvm_guest: Guest) -> None:
    # mov edx, PORT; again: inc ebx; out dx, al; jmp again
    kvm_guest.load()
    kvm_guest.memory.write(CODE, bytes.fromhex("ba00050000 ffc3 ee ebfb"))
    kvm_guest.vm.run(kvm_guest.recorder)
    for _ in range(1000):
        kvm_guest.vm.pause()
        kvm_guest.vm.resume()
    kvm_guest.vm.pause()
    count = kvm_guest.vm._vcpus[0].registers()["rbx"]  # type: ignore[attr-defined]
    assert len(kvm_guest.recorder.accesses) - count in (0, -1)  # no access was repeated by an interrupted entry


def test_guest_that_was_paused_is_told_by_its_clock(kvm_guest: Guest) -> None:
    """Else its watchdogs report a CPU that was stuck for as long as it stood still (PVCLOCK_GUEST_STOPPED)."""
    clock, flags, stopped = CODE + 0x800, 29, 1 << 1
    # mov ecx, MSR_KVM_SYSTEM_TIME_NEW; mov eax, clock | 1; xor edx, edx; wrmsr; mov edx, PORT; again: out dx, al; jmp
    set_clock = "b9014d564b" + "b8" + (clock | 1).to_bytes(4, "little").hex() + "31d2 0f30"
    kvm_guest.load()
    kvm_guest.memory.write(CODE, bytes.fromhex(set_clock + "ba00050000 ee ebfd"))
    kvm_guest.vm.run(kvm_guest.recorder)
    kvm_guest.wait_for(lambda: len(kvm_guest.recorder.accesses) > 10)
    kvm_guest.vm.pause()
    assert not kvm_guest.memory.read(clock + flags, 1)[0] & stopped
    kvm_guest.vm.resume()
    before = len(kvm_guest.recorder.accesses)
    kvm_guest.wait_for(lambda: len(kvm_guest.recorder.accesses) > before + 10)
    kvm_guest.vm.pause()
    assert kvm_guest.memory.read(clock + flags, 1)[0] & stopped


def test_foreign_signal_neither_disturbs_a_vcpu_nor_is_lost(kvm_guest: Guest) -> None:
    seen: list[int] = []
    kvm_guest.load()
    kvm_guest.memory.write(CODE, bytes.fromhex("ba00050000 ee ebfd"))  # mov edx, PORT; again: out dx, al; jmp again
    kvm_guest.vm.run(kvm_guest.recorder)
    kvm_guest.wait_for(lambda: len(kvm_guest.recorder.accesses) > 10)
    (thread,) = (t for t in threading.enumerate() if t.name == "vcpu 0")
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
        sent_at = len(kvm_guest.recorder.accesses)
        kvm_guest.wait_for(lambda: len(kvm_guest.recorder.accesses) > sent_at + 10)
        assert seen == []  # blocked on a vCPU's thread, and pending there
        kvm_guest.vm.pause()
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert kvm_guest.recorder.events == []


def test_thread_that_can_not_be_started_is_a_host_error(two_vcpus: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse_the_second(thread: threading.Thread) -> None:
        if thread.name == "vcpu 1":
            raise RuntimeError("can't start new thread")
        start(thread)

    two_vcpus.load(Spin())
    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(HostError, match="thread of vCPU 1"):
        two_vcpus.vm.run(two_vcpus.recorder)
    assert not [t for t in threading.enumerate() if t.name.startswith("vcpu")]


# Reset


def footprint() -> tuple[int, int, int]:
    """Open descriptors, threads and KVM mappings of this process."""
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), maps.count("kvm-vcpu")


def test_twenty_resets_leave_no_fd_thread_or_mapping_behind(two_vcpus: Guest) -> None:
    sizes = []
    fd = os.eventfd(0)
    for turn in range(20):
        two_vcpus.vm.ioeventfd(IoEventFd(fd=fd, space=Space.PIO, addr=PORT, len=1), True)
        two_vcpus.vm.irqfd(IrqFd(fd=fd, target=MsiMessage(addr=0xFEE0_0000, data=0x40)), True)
        two_vcpus.recorder.accesses.clear()
        two_vcpus.start(Out(PORT + 1, 1, turn), Spin())
        two_vcpus.wait_access("out", PORT + 1, 1, turn)
        two_vcpus.vm.reset()
        sizes.append(footprint())
    os.close(fd)
    assert set(sizes) == {sizes[0]}


def test_close_gives_every_descriptor_and_mapping_back() -> None:
    before = footprint()
    guest = Guest(open_kvm(vcpus=3))
    guest.start(READY, Spin())
    guest.wait_access("out", READY.port, 1, 1)
    guest.close()
    assert footprint() == before


def test_failed_open_gives_every_descriptor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    open_kvm().close()
    before = footprint()
    monkeypatch.setattr(vcpus, "FIRMWARE_MSRS", ((0xDEAD_BEEF, 1),))
    with pytest.raises(HostError, match="0xdeadbeef"):
        KvmVm.open(vcpus=2, allow_slow=True)
    assert footprint() == before


# What firmware leaves


def test_in_kernel_timer_answers_port_61(kvm_guest: Guest) -> None:
    kvm_guest.start(In(0x61, 1))
    assert kvm_guest.finish() == []


def test_guest_sees_hypervisor_bit_and_kvm_signature(kvm_guest: Guest) -> None:
    kvm_guest.start(cpuid(1, "ecx"), cpuid(0x4000_0000, "ebx"))
    kvm_guest.finish()
    features, signature = kvm_guest.results()
    assert features >> 31 == 1
    assert signature == int.from_bytes(b"KVMK", "little")


def test_guest_sees_its_topology(two_vcpus: Guest) -> None:
    two_vcpus.start(cpuid(1, "ebx"), cpuid(0xB, "ebx", 1), cpuid(0xB, "eax", 1))
    two_vcpus.finish()
    features, processors, shift = two_vcpus.results()
    assert features >> 24 == 0
    assert features >> 16 & 0xFF == 2
    assert (processors, shift) == (2, 1)


def test_memory_is_write_back_by_default(kvm_guest: Guest) -> None:
    kvm_guest.start(rdmsr(0x2FF))
    kvm_guest.finish()
    assert kvm_guest.results() == [0x806]


def test_local_apic_is_wired_to_pic_and_nmi(kvm_guest: Guest) -> None:
    # mov ebx, LVT; mov eax, [rbx]
    steps = [Raw(b"\xbb" + struct.pack("<I", 0xFEE0_0000 + lvt) + b"\x8b\x03") for lvt in (0x350, 0x360)]
    kvm_guest.start(*steps)
    kvm_guest.finish()
    assert [value & 0x700 for value in kvm_guest.results()] == [0x700, 0x400]


def test_firmware_entry_in_real_mode(kvm_guest: Guest) -> None:
    real = Segment(selector=0xF000, base=0xF_0000, limit=0xFFFF, access=0x9B)
    data = Segment(selector=0, base=0, limit=0xFFFF, access=0x93)
    kvm_guest.memory.write(0xF_FFF0, bytes.fromhex("ba0005 b8efbe ef ebfe"))  # mov dx, PORT; mov ax, 0xBEEF; out dx, ax
    kvm_guest.vm.set_boot_registers(BootRegisters(rip=0xFFF0, code=real, data=data, cr0=0x30))
    kvm_guest.vm.run(kvm_guest.recorder)
    kvm_guest.wait_access("out", PORT, 2, 0xBEEF)


def test_application_processor_waits_for_init_and_sipi(two_vcpus: Guest) -> None:
    two_vcpus.load(
        READY,
        Store(ICR_HIGH, 4, 1 << 24),
        Store(ICR_LOW, 4, 0x4500),  # INIT
        Store(ICR_HIGH, 4, 1 << 24),
        Store(ICR_LOW, 4, 0x4690),  # start-up at 0x90 << 12
        Spin(),
    )
    # mov dx, PORT; mov ax, cs; out dx, ax; cli; hlt
    two_vcpus.memory.write(0x9_0000, bytes.fromhex("ba0005 8cc8 ef fa f4"))
    two_vcpus.vm.run(two_vcpus.recorder)
    two_vcpus.wait_access("out", PORT, 2, 0x9000)
    two_vcpus.vm.pause()
    assert two_vcpus.recorder.accesses == [("out", READY.port, 1, 1), ("out", PORT, 2, 0x9000)]


# Opening


def test_boot_processor_can_have_another_apic_id() -> None:
    open_kvm().close()
    guest = Guest(KvmVm.open(vcpus=2, apic_ids=(4, 6), allow_slow=True))
    guest.start(cpuid(1, "ebx"))
    guest.finish()
    assert guest.results()[0] >> 24 == 4
    guest.close()


@pytest.mark.parametrize(("vcpus", "apic_ids"), [(0, ()), (100_000, ()), (2, (1,)), (2, (1, 1)), (1, (255,))], ids=str)
def test_impossible_vcpus_are_a_config_error(vcpus: int, apic_ids: tuple[int, ...]) -> None:
    open_kvm().close()
    with pytest.raises(ConfigError):
        KvmVm.open(vcpus=vcpus, apic_ids=apic_ids, allow_slow=True)


def test_open_vm_takes_the_options() -> None:
    open_kvm().close()
    vm = kvm.open_vm(HypervisorOptions(name="web", vcpus=2, allow_slow=True))
    assert (vm.name, vm.vcpus, vm.ioapic_pins) == ("web", 2, 24)
    vm.close()


def test_errors_name_call_errno_and_fix(kvm_guest: Guest) -> None:
    with pytest.raises(HostError) as caught:
        kvm_guest.vm.ioeventfd(IoEventFd(fd=-1, space=Space.PIO, addr=PORT, len=1), True)
    assert caught.value.err == errno.EBADF
    assert str(caught.value).startswith("KVM_IOEVENTFD: Bad file descriptor (EBADF); ")


def test_routes_run_out_with_an_error_and_come_back(kvm_guest: Guest) -> None:
    vm = kvm_guest.vm
    assert isinstance(vm, KvmVm)
    vm._bindings._routes.limit = 26  # as if the kernel had room for two messages
    fds = [os.eventfd(0) for _ in range(3)]
    calls = [IrqFd(fd=fd, target=MsiMessage(addr=0xFEE0_0000, data=0x40 + i)) for i, fd in enumerate(fds)]
    vm.irqfd(calls[0], True)
    vm.irqfd(calls[1], True)
    with pytest.raises(HostError, match="interrupt routes"):
        vm.irqfd(calls[2], True)
    vm.irqfd(calls[0], False)
    vm.irqfd(calls[2], True)
    for fd in fds:
        os.close(fd)


def test_refused_irqfd_gives_its_route_back(kvm_guest: Guest) -> None:
    vm = kvm_guest.vm
    assert isinstance(vm, KvmVm)
    fd = os.eventfd(0)
    first, second = (MsiMessage(addr=0xFEE0_0000, data=0x40 + i) for i in range(2))
    vm.irqfd(IrqFd(fd=fd, target=first), True)
    with pytest.raises(HostError):
        vm.irqfd(IrqFd(fd=fd, target=second), True)
    with pytest.raises(KeyError):
        vm._bindings._routes.gsi(second)
    os.close(fd)


def test_closed_vcpu_refuses_to_run() -> None:
    open_kvm().close()
    system = Kvm()
    vm = system.create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.close()
    with pytest.raises(RuntimeError):
        vcpu.run(Recorder())
    vcpu.request_exit()
    vm.close()
    system.close()


# Hooks


def test_hooks_serve_their_own_machine_only(kvm_guest: Guest) -> None:
    fd = os.eventfd(0)
    binding = IoEventFd(fd=fd, space=Space.PIO, addr=PORT, len=1)
    call = IrqFd(fd=fd, target=MsiMessage(addr=0xFEE0_0000, data=0x40))
    assert kvm.acrn_dm_vhm_ioeventfd(SimVm(), binding, True) is None
    assert kvm.acrn_dm_vhm_irqfd(SimVm(), call, True) is None
    for assign in (True, False):
        assert kvm.acrn_dm_vhm_ioeventfd(kvm_guest.vm, binding, assign) is True
        assert kvm.acrn_dm_vhm_irqfd(kvm_guest.vm, call, assign) is True
    os.close(fd)
