"""The conformance checks: good devices pass, and each check fails for the device that breaks its rule."""

import os
import threading
from collections.abc import Callable, Sequence

import pytest

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing import CHECKS, SimMachine, assert_device_conforms
from acrn_dm.testing.conformance import old as conformance
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import Echo, Holding, ModernOnly, NoConfig

Make = Callable[[DeviceContext], VirtioDevice]


def build(make: Make) -> conformance.Build:
    return lambda machine: machine.add(make, slot=conformance.SLOT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [Echo, ModernOnly, NoConfig, Holding])
def test_good_device_passes(make: Make, check: conformance.Check) -> None:
    check(build(make))


class RaisesInConfig(Echo):
    def read_config(self, offset: int, size: int) -> bytes:
        raise KeyError(offset)


class InterruptsAtStart(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        self.config_changed()


class LeaksAFile(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        leaked.append(os.dup(0))


class LeaksAThread(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        threading.Thread(target=release.wait, args=(60,), daemon=True).start()


class RemembersTheSession(Echo):
    used = 0

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        RemembersTheSession.used += 1
        if RemembersTheSession.used % 2 == 0:
            raise RuntimeError("only once")


class WritesTheDescriptorTable(Echo):
    def realize(self, resources: object) -> None:
        self.memory = resources.memory  # type: ignore[attr-defined]

    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        self.memory.write(0x10_0000, b"\xff" * 65536)


class PicksItsFeatures(Echo):
    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if not features & self.offers:
            raise RuntimeError("I insist")


leaked: list[int] = []
release = threading.Event()


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (RaisesInConfig, conformance.check_configuration_is_readable_everywhere_and_zero_past_its_end),
        (InterruptsAtStart, conformance.check_no_interrupt_at_driver_ok),
        (LeaksAFile, conformance.check_no_file_or_thread_is_left_behind),
        (LeaksAThread, conformance.check_no_file_or_thread_is_left_behind),
        (RemembersTheSession, conformance.check_two_instances_do_not_share_state),
        (PicksItsFeatures, conformance.check_every_valid_subset_of_features_starts),
        (WritesTheDescriptorTable, conformance.check_each_chain_is_returned_at_most_once_and_within_bounds),
    ],
)
def test_device_that_breaks_the_rule_fails_the_check(make: Make, check: conformance.Check) -> None:
    release.clear()
    try:
        with pytest.raises(AssertionError):
            check(build(make))
    finally:
        release.set()
        while leaked:
            os.close(leaked.pop())


def test_assert_device_conforms_names_the_check() -> None:
    with pytest.raises(AssertionError, match="check_configuration_is_readable"):
        assert_device_conforms(build(RaisesInConfig))
    assert_device_conforms(build(Echo))


def test_machine_that_is_left_with_an_escaped_exception_fails() -> None:
    class Escaping:
        def read(self, offset: int, size: int) -> int:
            raise ZeroDivisionError

        def write(self, offset: int, size: int, value: int) -> None:
            raise ZeroDivisionError

    machine = SimMachine()
    machine.machine.dispatch.pio.register(0x700, 4, Escaping(), "broken")
    machine.start()
    assert machine.vm.pio_read(0x700, 4) == 0xFFFF_FFFF
    with pytest.raises(AssertionError, match="1 accesses"):
        machine.close()
