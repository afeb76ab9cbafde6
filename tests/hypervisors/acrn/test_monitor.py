"""The interrupt storm monitor: what it asks of the hypervisor, and when."""

import errno
import os
import struct
from collections.abc import Callable

import attrs
import pytest

from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from tests.hypervisors.acrn.hsm_rig import Rig, rig

SETTINGS = InterruptMonitor(threshold=100, period_s=10, delay_ms=2, duration_ms=500)


@attrs.define(eq=False)
class Later:
    """A callback that waits for its time."""

    seconds: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@attrs.define(eq=False)
class Clock:
    """Takes the callbacks; ``tick`` runs the last one."""

    asked: list[Later] = attrs.field(factory=list)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Later:
        self.asked.append(Later(seconds, callback))
        return self.asked[-1]

    def tick(self) -> float:
        """Return how long it had to wait."""
        self.asked[-1].callback()
        return self.asked[-1].seconds


@attrs.define(eq=False)
class Hypervisor:
    """Counts of interrupts, and the commands that came."""

    counts: dict[int, int] = attrs.field(factory=dict)
    delays: list[int] = attrs.field(factory=list)

    def answer(self, page: memoryview) -> int:
        command, words, first = struct.unpack_from("<IIQ", page)
        assert words == 48
        if command == 1:
            self.delays.append(first)
            return 0
        struct.pack_into("<I", page, 4, 2 * len(self.counts))
        for i, (irq, count) in enumerate(self.counts.items()):
            struct.pack_into("<QQ", page, 8 + 16 * i, irq, count)
        return 0


def watched(r: Rig) -> tuple[Clock, Hypervisor]:
    clock, hypervisor = Clock(), Hypervisor()
    r.hsm.monitor = hypervisor.answer
    r.vm.watch_interrupts(SETTINGS, clock.call_later)
    return clock, hypervisor


def test_storm_delays_interrupts_for_a_while_and_counting_begins_anew() -> None:
    with rig() as r:
        clock, hypervisor = watched(r)
        hypervisor.counts = {33: 0, 40: 500}
        assert clock.tick() == 10
        hypervisor.counts = {33: 1001, 40: 1500}
        assert clock.tick() == 0.5
        assert hypervisor.delays == [2]
        assert clock.tick() == 5.0
        assert hypervisor.delays == [2, 0]
        clock.tick()
        assert hypervisor.delays == [2, 0]


@pytest.mark.parametrize(
    ("before", "after"),
    [({33: 0}, {33: 1000}), ({}, {33: 99999}), ({33: 5000}, {33: 10}), ({33: 0}, {34: 99999})],
    ids=["at the threshold", "new", "counted anew", "another"],
)
def test_what_is_no_storm_changes_nothing(before: dict[int, int], after: dict[int, int]) -> None:
    with rig() as r:
        clock, hypervisor = watched(r)
        for counts in (before, after):
            hypervisor.counts = counts
            assert clock.tick() == 10
        assert hypervisor.delays == []


@pytest.mark.parametrize("err", [errno.EPERM, errno.EFAULT, errno.EINVAL])
def test_refusal_ends_the_monitor_and_nothing_else(err: int, caplog: pytest.LogCaptureFixture) -> None:
    with rig() as r:
        clock, _ = watched(r)
        r.hsm.fail("VM_INTR_MONITOR", err)
        clock.tick()
        assert len(clock.asked) == 1
        assert f"the interrupt storm monitor ends: VM_INTR_MONITOR: {errno_text(err)}" in caplog.text


def errno_text(err: int) -> str:
    return f"{os.strerror(err)} ({errno.errorcode[err]})"


def test_monitor_follows_a_full_reset_and_ends_with_the_machine() -> None:
    with rig() as r:
        clock, _ = watched(r)
        r.vm.reset(full=True)
        assert [later.cancelled for later in clock.asked] == [True, False]
        r.vm.close()
        assert clock.asked[1].cancelled
