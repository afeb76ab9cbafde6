"""The simulated machine and its driver side: what plugin authors rely on."""

from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.options import option
from acrn_dm.contract.types import DeviceContext, DeviceType
from acrn_dm.memory.guest_memory import MIB, MemoryRange
from acrn_dm.testing import SimMachine
from acrn_dm.testing.heap import GuestHeap
from tests.virtio.parts import SLOT, Echo, NoConfig, machine_with

pytestmark = pytest.mark.both_formats


@attrs.frozen(kw_only=True)
class UpperConfig:
    text: str = option(help="What to answer.", default="x")


class Upper(Echo):
    def __init__(self, config: UpperConfig, context: DeviceContext) -> None:
        super().__init__(context)
        self.config = config.text.encode()


UPPER = DeviceType(name="upper", summary="Answers.", config=UpperConfig, create=Upper)


class Plugin:
    @hookimpl
    def acrn_dm_device_types(self) -> Iterable[DeviceType]:
        return [UPPER]


@pytest.mark.parametrize("what", [UPPER, "upper"])
def test_device_type_or_name_is_made_with_its_options(what: DeviceType | str) -> None:
    with SimMachine(plugins=[Plugin()]) as machine:
        function = machine.add(what, "text=hello", slot=SLOT)
        assert function.context.name == "upper-3:0"
        assert machine.driver(SLOT).read_config(0, 5) == b"hello"


def test_wrong_options_are_refused_as_on_the_command_line() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="unknown option"):
        machine.add(UPPER, "colour=red", slot=SLOT)


class OwnGrammar:
    @classmethod
    def from_string(cls, text: str) -> None:
        raise ValueError(f"{text!r} is nothing")


def test_grammar_of_its_own_that_refuses_a_text_is_told_with_the_devices_name() -> None:
    odd = DeviceType(name="odd", summary="", config=OwnGrammar, create=lambda options, context: Echo(context))
    with SimMachine() as machine, pytest.raises(ConfigError, match=r"^odd: 'this' is nothing$"):
        machine.add(odd, "this", slot=SLOT)


def test_backend_is_chosen_as_on_the_command_line() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match=r"upper-3:0: 'nope': no such backend"):
        machine.add(UPPER, "text=hello,backend=nope", slot=SLOT)


def test_what_makes_no_device_is_refused() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="made a str, which is no device"):
        machine.add(lambda context: "no device", slot=SLOT)  # type: ignore[arg-type,return-value]


def test_slot_without_a_function_is_told() -> None:
    with machine_with() as machine, pytest.raises(LookupError, match="slot 5"):
        machine.driver(5)


def test_device_can_not_be_added_to_a_running_machine() -> None:
    with machine_with() as machine:
        machine.start()
        with pytest.raises(RuntimeError, match="before"):
            machine.add(Echo, slot=4)


def test_two_devices_in_one_slot_are_separate_functions() -> None:
    with SimMachine() as machine:
        machine.add(Echo, slot=3, func=0)
        machine.add(NoConfig, slot=3, func=1)
        first, second = machine.driver(3, 0), machine.driver(3, 1)
        first.start()
        second.start()
        assert second.queue(0).transfer([b"ab"], [2]).data == b"ba"
        assert (first.queue_interrupts(0), second.queue_interrupts(0)) == (0, 1)


def test_memory_may_have_regions_that_touch_and_a_high_one() -> None:
    ranges = [MemoryRange(gpa=0, size=4 * MIB), MemoryRange(gpa=4 * MIB, size=MIB), MemoryRange(gpa=1 << 32, size=MIB)]
    with machine_with(memory=ranges) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        machine.memory.write(4 * MIB - 2, b"abcd")
        queue = driver.queue(0)
        head = queue.ring.add_chain([(4 * MIB - 2, 4)], [(1 << 32, 4)])
        queue.ring.publish()
        driver.registers.notify(0)
        machine.settle()
        assert queue.ring.used() == [(head, 4)]
        assert machine.memory.read(1 << 32, 4) == b"dcba"


def test_in_flight_counts_what_was_sent_and_did_not_come_back() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        queue = driver.queue(0)
        assert [queue.send([b"a"], [1]), queue.send([b"b"], [1])] == [0, 1]
        assert queue.in_flight == 2
        assert queue.kick()
        machine.settle()
        assert [c.token for c in queue.completed()] == [0, 1]
        assert queue.in_flight == 0


def test_buffers_are_reused_so_that_long_tests_fit_into_small_memory() -> None:
    with machine_with(memory=2 * MIB) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        for _ in range(64):
            driver.queue(0).transfer([bytes(32768)], [4])


def test_machine_reset_clears_memory_and_the_device_works_again() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        machine.memory.write(0x1000, b"old")
        machine.reset()
        assert machine.memory.read(0x1000, 3) == bytes(3)
        driver = machine.driver(SLOT)
        driver.start()
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_line_follows_the_pin_without_msix() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT, msix=False)
        driver.start()
        driver.queue(0).transfer([b"a"], [1])
        assert driver.line
        assert driver.registers.read_isr() == 1
        assert not driver.line


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_device_that_returns_a_chain_it_was_not_given_is_caught() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        ring = driver.queue(0).ring
        machine.memory.write(ring.layout.used + 4, (7).to_bytes(4, "little") + bytes(4))
        machine.memory.write(ring.layout.used + 2, (1).to_bytes(2, "little"))
        with pytest.raises(AssertionError, match="descriptor 7"):
            driver.queue(0).completed()


def test_heap_aligns_reuses_and_ends() -> None:
    heap = GuestHeap(0x1000, 0x4000)
    first = heap.take(100)
    assert first % 128 == 0
    heap.give(first)
    assert heap.take(128) == first
    assert heap.take(4096) == 0x2000
    with pytest.raises(MemoryError):
        heap.take(0x2000)


def test_built_in_kind_is_added_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    with SimMachine() as machine:
        function = machine.add("virtio-blk", f"{tmp_path}/disk", slot=SLOT)
        assert function.context.name == "virtio-blk-3:0"
        assert machine.driver(SLOT).read_config(0, 8) == (8).to_bytes(8, "little")


def test_options_may_be_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    with SimMachine() as machine:
        machine.add("virtio-blk", {"path": f"{tmp_path}/disk", "ro": True}, slot=SLOT)
        assert machine.driver(SLOT).registers.offered() & 1 << 5


def test_name_that_nobody_offers_is_told_with_what_it_may_have_been() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match=r"no device 'virtio-blok'.*'?virtio-blk"):
        machine.add("virtio-blok", slot=SLOT)


def test_device_is_had_by_its_slot_and_class() -> None:
    with SimMachine() as machine:
        function = machine.add(Echo, slot=4)
        assert machine.device(4, Echo) is function.device


def test_device_of_another_class_or_slot_is_told() -> None:
    with machine_with() as machine:
        with pytest.raises(TypeError, match="is a Echo, no NoConfig"):
            machine.device(SLOT, NoConfig)
        with pytest.raises(LookupError, match="slot 9"):
            machine.device(9, Echo)
