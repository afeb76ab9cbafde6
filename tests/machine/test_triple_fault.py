"""A triple fault's meaning, by when it happens and by how it is told."""

import pytest

from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.machine.triple_fault import TripleFaults


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults(clock: Clock) -> TripleFaults:
    made = TripleFaults(clock)
    made.started()
    return made


def test_fault_right_after_the_start_is_the_end_and_says_when(faults: TripleFaults, clock: Clock) -> None:
    clock.now += 0.03
    assert faults.failure(VmEvent.TRIPLE_FAULT, "rip 0x10") == "triple fault 30 ms after its start: rip 0x10"


@pytest.mark.parametrize(("after", "reset"), [(0.999, False), (1.0, True)])
def test_fault_a_second_after_the_start_is_a_reset(
    faults: TripleFaults, clock: Clock, after: float, reset: bool
) -> None:
    clock.now += after
    assert (faults.failure(VmEvent.TRIPLE_FAULT, "") is None) is reset


def test_each_start_begins_anew(faults: TripleFaults, clock: Clock) -> None:
    clock.now += 100
    faults.failure(VmEvent.TRIPLE_FAULT, "")
    faults.started()
    clock.now += 0.5
    assert faults.failure(VmEvent.TRIPLE_FAULT, "") == "triple fault 500 ms after its start"


@pytest.mark.parametrize(
    ("state", "after", "fault"),  # the state: ACPI is on, SCI_EN was preserved
    [
        ((True, True), 0.1, False),  # an operating system, however fast
        ((True, False), 0.1, True),
        ((True, False), 60, True),
        ((False, True), 0.1, True),
        ((False, True), 60, False),  # a guest without ACPI that powers off
    ],
)
def test_power_off_that_is_a_fault(
    faults: TripleFaults, clock: Clock, state: tuple[bool, bool], after: float, fault: bool
) -> None:
    clock.now += after
    assert faults.in_disguise(*state) is fault


def test_power_off_behind_the_event_of_the_same_fault_is_that_fault(faults: TripleFaults, clock: Clock) -> None:
    clock.now += 60
    faults.failure(VmEvent.TRIPLE_FAULT, "")
    assert faults.in_disguise(False, True)


def test_another_event_is_a_failure_whenever_it_comes(faults: TripleFaults, clock: Clock) -> None:
    clock.now += 60
    assert faults.failure(VmEvent.HALTED, "APIC id 1") == "halted with interrupts off: APIC id 1"
