"""The request page: who writes what when; by vCPUs that run no guest but make many accesses."""

import os
import signal
import struct
import threading
from collections.abc import Callable

import attrs
import pytest

from tests.rig import client as hsm
from tests.rig.client import Client, Request, vcpu_regs
from tests.rig.conftest import Rig, fails

REGS = vcpu_regs(rip=0, cs=(0, 0, 0xFFFF, 0x9B))
KEY = 0x5A5A_5A5A_5A5A_5A5A
DONE_PORT = 0x5F0
KICK = 0xD800_0000


def start(client: Client) -> Client:
    client.create()
    client.call(hsm.SET_VCPU_REGS, REGS)
    client.call(hsm.CREATE_IOREQ_CLIENT)
    client.call(hsm.START_VM)
    return client


@attrs.define(eq=False)
class Device:
    """What the storm expects of the client: reads give what was written last, exclusive-or'ed with a constant."""

    client: Client
    registers: dict[tuple[int, int], int] = attrs.field(factory=dict)
    answered: int = 0
    rounds: int = 0
    most: int = 0  # pending at once
    done: set[int] = attrs.field(factory=set)
    before: Callable[[Request], None] = lambda request: None

    def serve(self) -> None:
        """Until every vCPU is done."""
        while len(self.done) < self.client.vcpus:
            requests = self.client.attach()
            self.rounds += 1
            self.most = max(self.most, len(requests))
            for request in requests:
                self.before(request)
                self._answer(request)
                self.answered += 1

    def _answer(self, request: Request) -> None:
        place = (request.kind, request.address)
        if request.kind == hsm.PIO and request.address == DONE_PORT:
            self.done.add(request.vcpu)
        if request.write:
            self.registers[place] = request.value
            self.client.answer(request)
        else:
            self.client.answer(request, (self.registers.get(place, 0) ^ KEY) & (1 << 8 * request.size) - 1)


def storm(rig: Rig, monkeypatch: pytest.MonkeyPatch, count: int, vcpus: int = 1) -> Device:
    """A started VM whose vCPUs are about to make *count* accesses."""
    monkeypatch.setenv("RIG_STORM", str(count))
    return Device(start(rig.open(vcpus)))


def test_each_access_is_answered_once_and_right(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 4096, vcpus=8)
    device.serve()
    device.client.end()
    (stats,) = rig.stats()
    assert (
        stats["ioreqs"] == stats["notify"] == device.answered == 4096 + 8 + 512
    )  # a kick nobody bound, each fourth time
    assert stats["pio"] + stats["mmio"] + stats["pcicfg"] == stats["ioreqs"]
    assert (stats["pcicfg"], stats["cf8"]) == (1024, 512)
    assert 0 < stats["p50_ns"] <= stats["p99_ns"] <= stats["max_ns"] <= stats["total_ns"]


def test_wrong_answer_is_reported(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 2)
    (write,) = device.client.attach()
    device.client.answer(write)
    (read,) = device.client.attach()
    device.client.answer(read, 1)
    device.serve()
    device.client.end()
    rig.expect("storm: vCPU 0 wrote")


def test_bound_kick_is_handled_in_the_module_and_never_reaches_the_client(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIG_STORM", "800")
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    client = rig.open()
    client.create()
    client.call(hsm.SET_VCPU_REGS, REGS)
    client.call(hsm.CREATE_IOREQ_CLIENT)
    client.call(hsm.IOEVENTFD, hsm.ioeventfd(fd, KICK, 4))
    client.call(hsm.START_VM)
    device = Device(client)
    device.serve()
    assert os.eventfd_read(fd) == 100
    client.call(hsm.IOEVENTFD, hsm.ioeventfd(fd, KICK, 4, flags=4))
    client.end()
    os.close(fd)
    assert (hsm.MMIO, KICK) not in device.registers
    assert rig.stats()[0]["kernel_handled"] == 100


def test_attach_returns_at_once_while_a_request_is_unanswered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 2)
    first = device.client.attach()
    assert device.client.attach() == first
    device.serve()
    device.client.end()


def test_spurious_attach_returns_without_a_request(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_SPURIOUS", "2")
    device = storm(rig, monkeypatch, 20)
    device.serve()
    device.client.end()
    assert rig.stats()[0]["spurious"] >= 10


def test_signal_ends_attach_without_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 0)
    device.serve()  # nothing is to come
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    timer = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    assert device.client.attach() == []
    timer.join()
    signal.signal(signal.SIGUSR1, previous)
    device.client.end()


def test_destroying_the_client_ends_attach_with_enodev(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 0)
    device.serve()
    timer = threading.Timer(0.05, device.client.call, (hsm.DESTROY_IOREQ_CLIENT,))
    timer.start()
    fails(19, device.client.attach)  # ENODEV
    timer.join()
    device.client.end()


@pytest.mark.parametrize(
    ("misdeed", "text"),
    [
        (lambda c: (c.notify(0), c.notify(0)), "notified twice"),
        (lambda c: struct.pack_into("<I", c.page, 136, hsm.COMPLETE) or c.notify(0), "the client wrote state 1"),
        (lambda c: struct.pack_into("<Q", c.page, 72, 0x77) or c.notify(0), "changed more than the value"),
        (lambda c: struct.pack_into("<Q", c.page, 80, 8) or c.notify(0), "changed more than the value"),
        (lambda c: c.notify(0, vmid=7), "VM 7"),
    ],
    ids=["twice", "state", "address", "size", "vmid"],
)
def test_misdeed_of_the_client_is_reported(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, misdeed: Callable[[Client], object], text: str
) -> None:
    device = storm(rig, monkeypatch, 0)
    device.client.attach()
    misdeed(device.client)
    device.client.end()
    rig.expect(text)


@pytest.mark.parametrize(("how", "text"), [({"reserved": 1}, "the reserved field"), ({}, "no vCPU 5")])
def test_malformed_notification_is_einval(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, how: dict[str, int], text: str
) -> None:
    device = storm(rig, monkeypatch, 0)
    fails(22, lambda: device.client.notify(0 if how else 5, **how))
    device.serve()
    device.client.end()
    rig.expect(text)


def test_reset_with_a_request_unanswered_is_reported(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 0)
    device.client.attach()
    device.client.call(hsm.PAUSE_VM)
    device.client.call(hsm.RESET_VM)
    device.client.end()
    rig.expect("RESET_VM with a request unanswered")


def test_clearing_answers_what_is_pending(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    device = storm(rig, monkeypatch, 0)
    device.client.attach()
    device.client.call(hsm.PAUSE_VM)
    device.client.call(hsm.CLEAR_VM_IOREQ)
    device.client.call(hsm.RESET_VM)
    assert device.client.state(0)[0] == hsm.FREE
    device.client.end()
