"""Interrupts that are held back: what a ring remembers of the driver's wish, in both formats, by flags and by event
index, native and in the model.
"""

from typing import Any

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.ring.model import ModelMemory
from acrn_dm.ring.ring import DriverSide
from tests.ring.formats import FORMATS, Format

RING, DATA, SIZE = 0x1000, 0x8000, 8


@attrs.define(eq=False)
class Pair:
    """A driver and a device side, either of which returns chains by itself."""

    driver: DriverSide
    ring: Any

    def shows(self, chains: int = 1) -> bool:
        """Return so many chains, with the interrupt held back; whether there is one to get."""
        for _ in range(chains):
            self.driver.add_chain([], [(DATA, 16)])
            self.driver.publish()
            (chain,) = self.ring.pop_batch()
            self.ring.push(chain, 0)
        return bool(self.ring.hold())


@pytest.fixture(params=["native", "model"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "native")


def pair(fmt: Format, native: bool, *, event_idx: bool) -> Pair:
    memory: Any = (MemoryMap if native else ModelMemory)([(0, bytearray(0x1_0000))])
    layout = fmt.lay_out(RING, SIZE)
    driver = fmt.driver(memory, layout, event_idx=event_idx)
    driver.enable_interrupts()
    make = fmt.ring if native else fmt.model
    return Pair(driver, make(memory, layout, event_idx=event_idx))


@pytest.fixture(params=FORMATS, ids=str)
def events(request: pytest.FixtureRequest, native: bool) -> Pair:
    return pair(request.param, native, event_idx=True)


@pytest.fixture(params=[(fmt, event_idx) for fmt in FORMATS for event_idx in (False, True)], ids=str)
def either(request: pytest.FixtureRequest, native: bool) -> Pair:
    fmt, event_idx = request.param
    return pair(fmt, native, event_idx=event_idx)


def test_interrupt_that_is_held_is_sent_once(either: Pair) -> None:
    assert either.shows()
    assert either.shows(2)
    assert either.driver.returned() == 3  # shown all the same
    assert either.ring.release()
    assert not either.ring.release()


def test_driver_that_wants_none_has_none_to_get(either: Pair) -> None:
    either.driver.used()
    either.driver.disable_interrupts()
    assert not either.shows(2)
    assert not either.ring.release()


def test_driver_that_has_asked_for_something_else_was_awake(events: Pair) -> None:
    assert events.shows(2)
    events.driver.used()
    events.driver.interrupt_after(3)
    assert not events.ring.release()


def test_what_it_has_asked_for_meanwhile_is_held_in_its_turn(events: Pair) -> None:
    assert events.shows(2)
    events.driver.used()
    events.driver.interrupt_after(1)
    assert events.shows()  # of before: what it waits for now has not come
    assert events.shows()
    assert events.ring.release()


def test_driver_that_switched_them_off_has_none_to_get_later(either: Pair) -> None:
    assert either.shows(2)
    either.driver.used()
    either.driver.disable_interrupts()
    assert not either.ring.release()
    either.driver.enable_interrupts()
    assert either.shows()
    assert either.ring.release()
