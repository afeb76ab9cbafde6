"""Guests of a few instructions on /dev/kvm behind the emulated HSM: exits, interrupts, reset, several processors."""

import os
import struct
from collections.abc import Iterator

import attrs
import pytest

from tests.hypervisors import guest_program as gp
from tests.hypervisors.guest_program import AwaitInterrupts, In, Load, Out, Raw, RouteLine, Spin, Store, TripleFault
from tests.rig import client as hsm
from tests.rig.client import Client, Request, irq_line
from tests.rig.conftest import Rig

pytestmark = pytest.mark.process

PORT, WINDOW = 0x5000, 0xD000_0000
READY = Out(0x5A0, 1, 1)
MSI = 0xFEE0_0000
GSI = 33  # beyond the 24 pins of KVM's own I/O APIC
SMALL = 512 << 10

LONG_MODE = hsm.vcpu_regs(
    rip=gp.CODE,
    rsp=gp.STACK_TOP,
    cs=(gp.CODE_SELECTOR, 0, 0xFFFF_FFFF, 0xA09B),
    data_selector=gp.DATA_SELECTOR,
    cr0=0x8000_0031,
    cr3=gp.PML4,
    cr4=0x20,
    efer=0x500,
    gdt=(gp.GDT, 23),
)


def cpuid(leaf: int, register: str) -> Raw:
    """RAX gets one register of a leaf."""
    move = {"eax": b"", "ebx": b"\x89\xd8", "ecx": b"\x89\xc8", "edx": b"\x89\xd0"}[register]
    return Raw(b"\xb8" + struct.pack("<I", leaf) + b"\x31\xc9\x0f\xa2" + move)


@attrs.define(eq=False)
class Guest:
    """A VM with 4 MiB that runs a program; the test is the device model."""

    client: Client
    answers: dict[int, int] = attrs.field(factory=dict)
    accesses: list[tuple[object, ...]] = attrs.field(factory=list)
    results: int = 0

    def load(self, *steps: gp.Step) -> None:
        parts, self.results = gp.image(steps)
        (memory,) = self.client.memory
        for gpa, data in parts.items():
            memory[gpa : gpa + len(data)] = data
        self.client.call(hsm.SET_VCPU_REGS, LONG_MODE)

    def start(self, *steps: gp.Step) -> "Guest":
        self.load(*steps)
        self.client.call(hsm.CREATE_IOREQ_CLIENT)
        self.client.call(hsm.START_VM)
        return self

    def serve(self, *until: object) -> None:
        """Answer accesses up to and with this one."""
        while True:
            for request in self.client.attach():
                seen = self._note(request)
                self.client.answer(request, None if request.write else self.answers.get(request.address, 0))
                if seen == until:
                    return

    def _note(self, request: Request) -> tuple[object, ...]:
        kinds = {hsm.PIO: ("in", "out"), hsm.MMIO: ("load", "store"), hsm.PCICFG: ("cfg-in", "cfg-out")}
        name = kinds[request.kind][request.write]
        seen = (name, request.address, request.size, *((request.value,) if request.write else ()))
        self.accesses.append(seen)
        return seen

    def finish(self) -> list[tuple[object, ...]]:
        """To the program's end; what it did before."""
        self.serve("out", gp.DONE_PORT, 1, 1)
        return self.accesses[:-1]

    def values(self) -> tuple[int, ...]:
        (memory,) = self.client.memory
        return struct.unpack_from(f"<{self.results}Q", memory, gp.RESULTS)

    def vectors(self) -> list[object]:
        return [a[3] for a in self.accesses if a[:2] == ("out", gp.VECTOR_PORT)]


@pytest.fixture
def guest(rig: Rig) -> Iterator[Guest]:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that opens")
    client = rig.open()
    client.create()
    client.set_memory(gp.RAM_SIZE)
    yield Guest(client)
    client.end()


def test_ports_and_memory_become_requests_and_answers_come_back(guest: Guest) -> None:
    guest.answers = {PORT: 0x1234_5678, WINDOW: 0x1122_3344_5566_7788}
    guest.start(Out(PORT, 2, 0xBEEF), In(PORT, 1), In(PORT, 4), Store(WINDOW, 8, 7), Load(WINDOW, 8), Load(WINDOW, 2))
    assert guest.finish() == [
        *[("out", PORT, 2, 0xBEEF), ("in", PORT, 1), ("in", PORT, 4)],
        *[("store", WINDOW, 8, 7), ("load", WINDOW, 8), ("load", WINDOW, 2)],
    ]
    assert guest.values() == (0x78, 0x1234_5678, 0x1122_3344_5566_7788, 0x7788)


def test_configuration_address_stays_in_the_module_and_data_becomes_pcicfg(guest: Guest) -> None:
    address = 0x8000_0000 | 3 << 11 | 1 << 8 | 0x40
    place = 3 << 19 | 1 << 16 | 0x40
    guest.answers = {place + 2: 0xABCD}
    guest.start(Out(0xCF8, 4, address), In(0xCF8, 4), Out(0xCFC, 4, 5), In(0xCFE, 2), Out(0xCF8, 4, 0), In(0xCFC, 4))
    assert guest.finish() == [("cfg-out", place, 4, 5), ("cfg-in", place + 2, 2)]
    assert guest.values() == (address, 0xABCD, 0xFFFF_FFFF)


def test_acrn_tells_its_name_and_the_clock_by_cpuid(guest: Guest) -> None:
    leaf = 0x4000_0000
    guest.start(*(cpuid(leaf, r) for r in ("eax", "ebx", "ecx", "edx")), cpuid(leaf + 0x10, "eax"))
    guest.finish()
    highest, *name, khz = guest.values()
    assert highest == 0x4000_0010
    assert struct.pack("<3I", *name) == b"ACRNACRNACRN"
    assert khz > 100_000


@pytest.mark.parametrize("slow", [False, True], ids=["kvm", "module"])
def test_kick_is_taken_by_the_modules_rules(guest: Guest, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    if slow:
        monkeypatch.setenv("RIG_SLOW", "1")
    first, second = os.eventfd(0), os.eventfd(0)
    guest.client.call(hsm.IOEVENTFD, hsm.ioeventfd(first, PORT, 4, flags=3, data=7))
    guest.client.call(hsm.IOEVENTFD, hsm.ioeventfd(second, WINDOW, 4))
    guest.start(
        *(Out(PORT, 4, 7), Out(PORT, 2, 7), Out(PORT, 4, 8), In(PORT, 4)),  # exact, narrower, no match, read
        *(Store(WINDOW, 4, 1), Store(WINDOW, 2, 2), Store(WINDOW + 2, 2, 2), Store(WINDOW, 8, 3), Load(WINDOW, 4)),
    )
    assert guest.finish() == [("store", WINDOW, 8, 3)]  # not inside the range
    assert (os.eventfd_read(first), os.eventfd_read(second)) == (2, 2)
    assert guest.values() == (0, 0)
    for fd, addr in ((first, PORT), (second, WINDOW)):
        guest.client.call(hsm.IOEVENTFD, hsm.ioeventfd(fd, addr, 4, flags=4))
        os.close(fd)


def test_message_and_irqfd_run_their_handlers(guest: Guest) -> None:
    fd = os.eventfd(0)
    guest.client.call(hsm.IRQFD, hsm.irqfd(fd, MSI, gp.VECTORS[1]))
    guest.start(READY, AwaitInterrupts(2))
    guest.serve("out", READY.port, 1, 1)
    guest.client.call(hsm.INJECT_MSI, struct.pack("<QQ", MSI, gp.VECTORS[0]))
    guest.serve("out", gp.VECTOR_PORT, 1, gp.VECTORS[0])
    os.eventfd_write(fd, 1)
    guest.finish()
    assert guest.vectors() == [gp.VECTORS[0], gp.VECTORS[1]]
    guest.client.call(hsm.IRQFD, hsm.irqfd(fd, 0, 0, flags=1))
    os.close(fd)


def test_active_low_line_interrupts_until_it_is_high(guest: Guest) -> None:
    guest.client.call(hsm.SET_IRQLINE, irq_line(GSI, hsm.LINE_HIGH))
    guest.start(RouteLine(GSI, gp.VECTORS[0]), READY, AwaitInterrupts(2))
    guest.serve("out", READY.port, 1, 1)
    guest.client.call(hsm.SET_IRQLINE, irq_line(GSI, hsm.LINE_LOW))
    guest.serve("out", gp.VECTOR_PORT, 1, gp.VECTORS[0])
    guest.serve("out", gp.VECTOR_PORT, 1, gp.VECTORS[0])  # again after its EOI
    guest.client.call(hsm.SET_IRQLINE, irq_line(GSI, hsm.LINE_HIGH))
    guest.finish()
    assert set(guest.vectors()) == {gp.VECTORS[0]}


def test_active_high_entry_interrupts_while_the_line_is_high(guest: Guest) -> None:
    select, window, entry = 0xFEC0_0000, 0xFEC0_0010, 0x10 + 2 * GSI
    level_high = 1 << 15 | gp.VECTORS[2]
    guest.start(
        *(Store(select, 4, entry + 1), Store(window, 4, 0), Store(select, 4, entry)),
        *(Store(window, 4, level_high), Load(window, 4), READY, AwaitInterrupts(1)),
    )
    guest.serve("out", READY.port, 1, 1)
    assert guest.values() == (level_high,)
    guest.client.call(hsm.SET_IRQLINE, irq_line(GSI, hsm.LINE_HIGH))
    guest.serve("out", gp.VECTOR_PORT, 1, gp.VECTORS[2])
    guest.client.call(hsm.SET_IRQLINE, irq_line(GSI, hsm.LINE_LOW))
    guest.finish()


def test_pulse_is_one_edge(guest: Guest) -> None:
    guest.start(RouteLine(4, gp.VECTORS[0], edge=True), READY, AwaitInterrupts(1), READY, AwaitInterrupts(2))
    for _ in range(2):
        guest.serve("out", READY.port, 1, 1)
        guest.client.call(hsm.SET_IRQLINE, irq_line(4, hsm.LINE_RISING))
        guest.serve("out", gp.VECTOR_PORT, 1, gp.VECTORS[0])
    guest.finish()
    assert guest.vectors() == [gp.VECTORS[0]] * 2


def test_pic_interrupts_through_lint0(guest: Guest) -> None:
    """ICW1-4 with vectors from 0x40, only input 1 open: the keyboard's line arrives as 0x41 and ends by an EOI."""
    wake_pic = [Out(0x20, 1, 0x11), Out(0x21, 1, 0x40), Out(0x21, 1, 4), Out(0x21, 1, 1), Out(0x21, 1, 0xFD)]
    lint0 = Store(0xFEE0_0350, 4, 7 << 8)
    guest.start(lint0, *wake_pic, In(0x21, 1), READY, AwaitInterrupts(1), Out(0x20, 1, 0x20), READY, AwaitInterrupts(2))
    for _ in range(2):
        guest.serve("out", READY.port, 1, 1)
        guest.client.call(hsm.SET_IRQLINE, irq_line(1, hsm.LINE_RISING))
        guest.serve("out", gp.VECTOR_PORT, 1, 0x41)
    guest.finish()
    assert guest.vectors() == [0x41, 0x41]
    assert guest.values() == (0xFD,)


def test_triple_fault_is_the_power_off_that_acrn_writes(guest: Guest) -> None:
    guest.start(TripleFault())
    guest.serve("out", 0x404, 2, 1 << 13 | 5 << 10)


def test_reset_machine_runs_again_with_its_kicks(guest: Guest) -> None:
    fd = os.eventfd(0)
    guest.client.call(hsm.IOEVENTFD, hsm.ioeventfd(fd, PORT, 2, flags=1))
    guest.start(Out(PORT, 2, 1), READY, Spin())
    guest.serve("out", READY.port, 1, 1)
    for turn in range(3):
        guest.client.call(hsm.PAUSE_VM)
        guest.client.call(hsm.CLEAR_VM_IOREQ)
        guest.client.call(hsm.RESET_VM)
        guest.load(Out(PORT, 2, 1), Out(PORT + 4, 1, turn))
        guest.client.call(hsm.START_VM)
        guest.finish()
    assert [a for a in guest.accesses if a[1] == PORT + 4] == [("out", PORT + 4, 1, turn) for turn in range(3)]
    assert os.eventfd_read(fd) == 4
    guest.client.call(hsm.IOEVENTFD, hsm.ioeventfd(fd, PORT, 2, flags=5))
    os.close(fd)


def test_spinning_guest_pauses(guest: Guest, rig: Rig) -> None:
    guest.start(READY, Spin())
    guest.serve("out", READY.port, 1, 1)
    guest.client.call(hsm.PAUSE_VM)
    assert rig.calls()[-1] == "PAUSE_VM"


AP_CODE = 0x9000
AP_PROGRAM = b"\xba" + struct.pack("<H", PORT) + b"\xb0\x77\xee\xf4"  # real mode: mov dx, PORT; mov al, 0x77; out; hlt


def test_other_processor_starts_by_init_and_sipi(rig: Rig) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that opens")
    client = rig.open(vcpus=2)
    client.create(affinity=0b1010)  # LAPIC ids 1 and 3
    client.set_memory(gp.RAM_SIZE)
    guest = Guest(client)
    client.memory[0][AP_CODE : AP_CODE + len(AP_PROGRAM)] = AP_PROGRAM
    high, low = 0xFEE0_0310, 0xFEE0_0300
    guest.start(
        cpuid(1, "ebx"),
        *(
            Store(high, 4, 3 << 24),
            Store(low, 4, 0x4500),
            Store(high, 4, 3 << 24),
            Store(low, 4, 0x4600 | AP_CODE >> 12),
        ),
    )
    guest.serve("out", gp.DONE_PORT, 1, 1)
    if ("out", PORT, 1, 0x77) not in guest.accesses:
        guest.serve("out", PORT, 1, 0x77)
    assert guest.values()[0] >> 24 == 1
    client.end()
