"""The I/O request thread: what it answers, what it leaves alone, and that no answer is lost or doubled."""

import os
import random
import struct
import threading
import time
from collections import Counter

import pytest

from acrn_dm.base.events.eventfd import drain
from acrn_dm.base.irq import IoEventFd, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.pci.eventfds import make_eventfd
from tests.hypervisors.acrn.fake_acrn_vm import HANDLED, PROCESSING, REQUEST, SLOT, STATE, FakeVm
from tests.hypervisors.acrn.hsm_rig import FLAT, Rig, last_access, rig


def config_access(r: Rig, latch: int, port: int, size: int, value: int | None = None) -> int:
    """A configuration access by ports, as a guest makes it."""
    r.hsm.vm.pio_write(0xCF8, 4, latch)
    if value is None:
        return r.hsm.vm.pio_read(port, size)
    r.hsm.vm.pio_write(port, size, value)
    return 0


def test_config_access_by_ports_comes_decoded() -> None:
    with rig() as r:
        r.boot()
        function = 5 << 8 | 3 << 3 | 2
        r.dispatch.answers[function << 12 | 0xA7E] = 0x1234
        latch = 1 << 31 | 0xA << 24 | function << 8 | 0x7C
        assert config_access(r, latch, 0xCFE, 2) == 0x1234
        config_access(r, latch, 0xCFC, 4, 0xDEAD_BEEF)
        assert r.dispatch.accesses == [
            ("config in", function, 0xA7E, 2),
            ("config out", function, 0xA7C, 4, 0xDEAD_BEEF),
        ]


def test_config_address_and_disabled_data_port_never_come() -> None:
    with rig() as r:
        r.boot()
        assert config_access(r, 0x1234_5678, 0xCFC, 4) == 0xFFFF_FFFF
        assert r.hsm.vm.pio_read(0xCF8, 4) == 0x1234_5678
        assert r.dispatch.accesses == []


def post_raw(vm: FakeVm, kind: int, direction: int, address: int, size: int) -> None:
    """Put a request that no processor makes into the slot of vCPU 0."""
    with vm.hsm.changed:
        struct.pack_into("<I", vm.slots, 0, kind)
        struct.pack_into("<IIQQQ", vm.slots, REQUEST, direction, 0, address, size, 0)
        struct.pack_into("<II", vm.slots, HANDLED, 0, PROCESSING)
        vm.waiting.add(0)
        vm.hsm.changed.notify_all()
        assert vm.hsm.changed.wait_for(lambda: not vm.waiting, 10)


@pytest.mark.parametrize(
    ("kind", "address", "size"), [(0, 0x500, 3), (0, 0x500, 8), (0, 0x1_0000, 1), (1, 0x500, 16), (2, 0, 8), (9, 0, 4)]
)
def test_request_that_no_processor_makes_reads_all_ones_and_is_finished(kind: int, address: int, size: int) -> None:
    with rig() as r:
        r.boot()
        post_raw(r.hsm.vm, kind, 0, address, size)
        post_raw(r.hsm.vm, kind, 1, address, size)
        assert r.dispatch.accesses == []
        assert struct.unpack_from("<I", r.hsm.vm.slots, REQUEST + 24) == (0,)  # what the write left


def test_write_protected_page_is_a_store() -> None:
    with rig() as r:
        r.boot()
        post_raw(r.hsm.vm, 3, 1, 0xD000_0000, 4)
        assert r.dispatch.accesses == [("store", 0xD000_0000, 4, 0)]


def test_slot_of_another_client_is_left_alone() -> None:
    """A kick that the kernel is about to signal is in state PROCESSING, too."""
    with rig(vcpus=2) as r:
        r.boot()
        vm = r.hsm.vm
        with r.hsm.changed:
            struct.pack_into("<II", vm.slots, SLOT + HANDLED, 1, PROCESSING)
        for value in range(20):
            vm.pio_write(0x80, 1, value)
        assert [a[3] for a in r.dispatch.accesses] == list(range(20))
        assert vm._word(SLOT + STATE) == PROCESSING
        assert vm.answered[1] == 0


def test_attach_without_a_reason_answers_nothing() -> None:
    with rig() as r:
        r.boot()
        with r.hsm.changed:
            r.hsm.vm.spurious = 1000
            r.hsm.changed.notify_all()
        r.hsm.vm.pio_write(0x80, 1, 7)
        with r.hsm.changed:
            assert r.hsm.changed.wait_for(lambda: r.hsm.vm.spurious == 0, 20)
        assert r.dispatch.accesses == [("out", 0x80, 1, 7)]
        assert r.hsm.names().count("NOTIFY_REQUEST_FINISH") == 1


def test_paused_thread_does_not_spin_on_an_unanswered_request() -> None:
    with rig(vcpus=2) as r:
        r.boot()
        r.dispatch.hold = True
        vcpu = last_access(lambda: r.hsm.vm.pio_write(0xCF9, 1, 6))
        r.dispatch.wait_for(lambda: bool(r.dispatch.accesses))
        time.sleep(0.1)  # in which a thread that spins would attach ten thousand times
        assert r.hsm.names().count("ATTACH_IOREQ_CLIENT") <= 2
        r.vm.pause()
        vcpu.join()


def test_access_that_raises_ends_the_guest() -> None:
    def broken(access: tuple[object, ...]) -> None:
        raise RuntimeError("a bug")

    with rig() as r:
        r.dispatch.on_access = broken
        r.boot()
        vcpu = last_access(lambda: r.hsm.vm.pio_read(0x80, 1))
        r.dispatch.wait_for(lambda: bool(r.dispatch.events))
        assert r.dispatch.events == [(VmEvent.INTERNAL_ERROR, "an access of the guest failed: RuntimeError('a bug')")]
        r.vm.stop()
        vcpu.join()


def test_eight_vcpus_with_requests_at_once_get_their_own_answers() -> None:
    gate = threading.Barrier(8)
    got: dict[int, int] = {}

    def vcpu(number: int) -> None:
        gate.wait()
        got[number] = r.hsm.vm.pio_read(0x500 + number, 4, vcpu=number)

    with rig(vcpus=8) as r:
        r.dispatch.answers.update({0x500 + i: 0xA000_0000 + i for i in range(8)})
        r.boot()
        with r.hsm.changed:  # nobody is attached while all eight are posted
            threads = [threading.Thread(target=vcpu, args=(i,)) for i in range(8)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        assert got == {i: 0xA000_0000 + i for i in range(8)}


class Echo:
    """A dispatch that answers each read with a function of its address, and sums up the writes."""

    def __init__(self) -> None:
        self.reads = 0
        self.written: dict[int, int] = {}

    def pio_read(self, port: int, size: int) -> int:
        self.reads += 1
        return port * 0x1_0001

    def pio_write(self, port: int, size: int, value: int) -> None:
        self.written[port] = self.written.get(port, 0) + value

    def mmio_read(self, gpa: int, size: int) -> int:
        self.reads += 1
        return gpa * 3

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        self.written[gpa] = self.written.get(gpa, 0) + value

    def pci_config_read(self, function: int, register: int, size: int) -> int:
        self.reads += 1
        return function << 12 | register

    def pci_config_write(self, function: int, register: int, size: int, value: int) -> None:
        raise AssertionError("nobody does")

    def vcpu_must_wait(self) -> bool:
        return False

    def vm_event(self, event: VmEvent, detail: str) -> None:
        raise AssertionError(f"{event}: {detail}")


KICK_PORT = 0x2010


def storm(vm: FakeVm, vcpu: int, turns: int, sent: Counter[int], errors: list[str]) -> None:
    """Random accesses; every read must give what belongs to its address. *sent* sums up the writes by address."""
    chance = random.Random(vcpu)
    port, gpa = 0x600 + 8 * vcpu, 0xE000_0000 + 0x1000 * vcpu
    for turn in range(turns):
        value = chance.randrange(1, 1 << 16)
        kind = chance.choice(("in", "load", "out", "store", "kick"))
        if kind == "in" and vm.pio_read(port, 4, vcpu) != port * 0x1_0001:
            errors.append(f"vCPU {vcpu} turn {turn}: wrong answer from a port")
        elif kind == "load" and vm.mmio_read(gpa + value, 8, vcpu) != 3 * (gpa + value):
            errors.append(f"vCPU {vcpu} turn {turn}: wrong answer from memory")
        elif kind == "out":
            vm.pio_write(port, 2, value, vcpu)
            sent[port] += value
        elif kind == "store":
            vm.mmio_write(gpa, 2, value, vcpu)
            sent[gpa] += value
        elif kind == "kick":
            vm.pio_write(KICK_PORT, 2, value, vcpu)
            sent[KICK_PORT] += 1


@pytest.mark.stress
def test_requests_of_eight_vcpus_at_once_lose_and_double_nothing() -> None:
    """With kicks that the kernel takes in between, and returns of ATTACH for no reason. ``tests/rig`` has a hundred
    thousand, of real calls.
    """
    turns = 4_000
    errors: list[str] = []
    sent: list[Counter[int]] = [Counter() for _ in range(8)]
    stop = threading.Event()
    with rig(vcpus=8) as r:
        echo, vm = Echo(), r.hsm.vm
        r.vm.set_boot_registers(FLAT)
        r.vm.run(echo)
        kick_fd = make_eventfd()
        r.vm.ioeventfd(IoEventFd(fd=kick_fd, space=Space.PIO, addr=KICK_PORT, len=2), True)

        def disturb() -> None:
            while not stop.wait(0.001):
                with r.hsm.changed:
                    vm.spurious += 1
                    r.hsm.changed.notify_all()

        threads = [threading.Thread(target=storm, args=(vm, i, turns, sent[i], errors)) for i in range(8)]
        disturber = threading.Thread(target=disturb)
        for thread in (disturber, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        disturber.join()
        r.vm.stop()
        totals = sum(sent, Counter())
        kicks = totals.pop(KICK_PORT)
        assert errors == []
        assert echo.written == totals
        assert sum(vm.answered.values()) == 8 * turns
        assert r.vm._made.requests.stats.served == 8 * turns - kicks
        assert drain(kick_fd) == kicks
        os.close(kick_fd)
