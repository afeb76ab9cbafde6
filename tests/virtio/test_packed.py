"""Packed rings behind the registers: who is offered them, which sizes they can have, that a pause keeps their place."""

import pytest

from acrn_dm.ring.packed.driver import PackedDriverRing
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET, PACKED, VERSION_1
from tests.backends.kernel.kernel_rig import vhost_card
from tests.virtio.parts import SLOT, Echo, Holding, device_of, machine_with
from tests.virtio.pause import pause, resume


def offered(kind: str, options: str) -> bool:
    with SimMachine() as machine:
        machine.add(kind, options, slot=SLOT)
        return bool(machine.driver(SLOT).registers.offered() & PACKED)


def packed_driver(machine: SimMachine, **queues: int) -> VirtioDriver:
    """A driver that uses packed rings, queue 0 of ``size`` descriptors; none of them has been used."""
    driver = machine.driver(SLOT)
    assert driver.negotiate(driver.registers.offered())
    driver.setup_queue(0, size=queues.get("size"))
    driver.setup_queue(1)
    driver.status |= 4
    assert isinstance(driver.queue(0).ring, PackedDriverRing)
    return driver


@pytest.mark.parametrize(("options", "there"), [("", True), (",packed=on", True), (",packed=off", False)])
def test_device_that_this_process_serves_offers_packed_rings(options: str, there: bool) -> None:
    assert offered("virtio-console", f"@pty:con{options}") is there


def test_legacy_driver_sees_nothing_of_them() -> None:
    with machine_with() as machine:
        driver = machine.driver_legacy(SLOT)
        assert not driver.registers.offered() & PACKED
        driver.start()
        assert driver.queue(0).transfer([b"abc"], [3]).data == b"cba"


@pytest.mark.parametrize("size", [1, 3, 5, 63, 64])
def test_packed_size_any_is_taken_by_queue_size(size: int) -> None:
    """Conformance row d.packed.size_any: chains of up to three descriptors, several times round."""
    with machine_with() as machine:
        driver = packed_driver(machine, size=size)
        queue = driver.queue(0)
        assert queue.ring.layout.size == size
        for n in range(2 * size + 3):
            out = [b"ab"] if size == 1 else [bytes([n]), b"b"]
            done = queue.transfer(out, [3], indirect=size < 3)
            assert done.data[:2] == b"".join(out)[::-1][:2]


@pytest.mark.parametrize(("features", "size"), [(VERSION_1, 64), (VERSION_1 | PACKED, 5)])
def test_row_pow2_size_that_is_no_power_of_two_is_one_of_packed_rings_only(features: int, size: int) -> None:
    """Conformance row pci.common.queue_size.pow2."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        assert driver.negotiate(features)
        driver.registers.write("queue_select", 0)
        driver.registers.write("queue_size", 5)
        assert driver.registers.read("queue_size") == size


def test_size_above_the_maximum_is_ignored() -> None:
    """Row 31 of vmm-anchors 3b."""
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        assert driver.negotiate(VERSION_1 | PACKED)
        for value in (0, 65, 128, 32768, 65535):
            driver.registers.write("queue_select", 0)
            driver.registers.write("queue_size", value)
            assert driver.registers.read("queue_size") == 64


def test_pause_keeps_the_place_and_the_wrap_counter() -> None:
    with machine_with() as machine:
        driver = packed_driver(machine, size=5)
        for n in range(14):
            assert driver.queue(0).transfer([b"a", bytes([n])], [2]).data == bytes([n]) + b"a"
            pause(machine.bus.functions[0])
            resume(machine.bus.functions[0])
        assert not driver.status & NEEDS_RESET


def test_chains_that_a_device_holds_are_taken_again_after_a_pause() -> None:
    with machine_with(Holding) as machine:
        driver = packed_driver(machine, size=5)
        queue = driver.queue(0)
        for _ in range(2):
            queue.send([b"a"], [4])
        queue.kick()
        machine.settle()
        pause(machine.bus.functions[0])
        holding = device_of(machine)
        assert isinstance(holding, Holding)
        holding.held.clear()
        resume(machine.bus.functions[0])
        machine.settle()
        holding.complete()
        machine.settle()
        assert [done.data for done in queue.completed()] == [b"done"] * 2


def test_ring_that_is_reset_alone_begins_anew() -> None:
    with machine_with() as machine:
        driver = packed_driver(machine, size=3)
        for _ in range(2):
            driver.queue(0).transfer([b"ab"], [2])
        driver.reset_queue(0)
        driver.setup_queue(0, size=7)
        assert driver.queue(0).transfer([b"ab"], [2]).data == b"ba"


def test_driver_that_breaks_its_packed_ring_is_asked_for_a_reset() -> None:
    with machine_with(Echo) as machine:
        driver = packed_driver(machine)
        driver.queue(0).ring.poke([(1 << 60, 4, 0, 0)])
        driver.queue(0).kick(force=True)
        machine.settle()
        assert driver.status & NEEDS_RESET


@pytest.mark.parametrize("options", ["tap=t0,vhost", "tap=t0,vhost,packed=on"])
def test_kernel_vhost_has_no_packed_rings(options: str) -> None:
    with vhost_card(options) as card:
        assert not card.driver.registers.offered() & PACKED
        card.driver.start()
        assert card.echo(0) == b"ba"
