"""Queues that come and go in any order, with pauses and device resets in between: a model of what is enabled, and every
queue that is serves its driver.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.testing import VirtioDriver
from tests.virtio.parts import SLOT, Echo, machine_with
from tests.virtio.pause import pause, resume
from tests.virtio.test_queue_reset import OneByOne, states

pytestmark = pytest.mark.both_formats(fast=True)

SIZES = (1, 2, 16)
WAYS: dict[str, tuple[Any, str]] = {"alone": (OneByOne, "vbs-u"), "all": (Echo, "vbs-u"), "kernel": (Echo, "vhost")}
STEPS = st.one_of(
    st.tuples(st.just("reset"), st.integers(0, 1)),
    st.tuples(st.just("enable"), st.integers(0, 1), st.sampled_from(SIZES)),
    st.tuples(st.just("kick"), st.integers(0, 3)),
    st.tuples(st.just("write"), st.integers(0, 3), st.sampled_from(("queue_size", "queue_enable", "queue_reset"))),
    st.tuples(st.just("pause")),
    st.tuples(st.just("restart")),
)


class Serving(OneByOne):
    """Answers at once, and lets go of one queue."""

    handle_queue = Echo.handle_queue


def step(driver: VirtioDriver, enabled: set[int], what: tuple[Any, ...]) -> None:
    name, *rest = what
    function = driver.machine.bus.functions[0]
    if name == "reset":
        driver.reset_queue(rest[0])
        enabled.discard(rest[0])
    elif name == "enable" and rest[0] not in enabled:
        driver.setup_queue(rest[0], size=rest[1])
        enabled.add(rest[0])
    elif name == "kick":
        driver.registers.notify(rest[0])
    elif name == "write":
        driver.registers.write("queue_select", rest[0])
        driver.registers.write(rest[1], 3)  # no size, no order: nothing that anybody takes
    elif name == "pause":
        pause(function)
        resume(function)
    elif name == "restart":
        driver.start()
        enabled |= {0, 1}


@pytest.mark.split_rings("writes 3 into queue_size, which is a size of packed rings")
@settings(max_examples=40)
@given(way=st.sampled_from(sorted(WAYS)), steps=st.lists(STEPS, max_size=14))
def test_queues_are_what_their_driver_made_of_them(way: str, steps: list[tuple[Any, ...]]) -> None:
    device, backend = WAYS[way]
    with machine_with(Serving if device is OneByOne else device, backend=backend) as machine:
        driver, enabled = machine.driver(SLOT), {0, 1}
        driver.start()
        for what in steps:
            step(driver, enabled, what)
            machine.settle()
            assert [states(driver, index) for index in (0, 1)] == [(0, int(index in enabled)) for index in (0, 1)]
        for index in enabled:
            queue = driver.queue(index)
            for _ in range(3):
                writable = queue.ring.layout.size > 1
                done = queue.transfer([b"ab"], [2]) if writable else queue.transfer([b"ab"])
                assert done.data == (b"ba" if writable else b"")
        assert not driver.status & 64
        assert len(machine.vm.kicks.bindings) == len(enabled)
