"""The guests of the protocol's tests: they end with their machine, whoever of the two is faster."""

import threading

import pytest

from tests.hypervisors import guests
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.conftest import open_hsm
from tests.hypervisors.guest_program import Spin
from tests.hypervisors.guests import HsmGuest


def test_guest_that_is_stopped_before_its_thread_comes_to_wait_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    perform = guests._HsmProgram.perform

    def late(program: guests._HsmProgram, steps: tuple[Spin, ...]) -> None:
        stopped.wait()
        perform(program, steps)

    monkeypatch.setattr(guests._HsmProgram, "perform", late)
    monkeypatch.setattr(guests, "PATIENCE_S", 3.0)
    hsm = FakeHsm(acrn_kernel=True)
    guest = HsmGuest(open_hsm(hsm), hsm)
    guest.start(Spin())
    guest.vm.stop()
    stopped.set()
    guest.close()
