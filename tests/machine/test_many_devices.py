"""Machines with many devices: what they cost grows as their number does, not as its square."""

import os
from collections.abc import Callable, Iterator

import pytest

from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.machine.build import build
from acrn_dm.pci import config_space as cs
from acrn_dm.pci.eventfds import make_eventfd
from acrn_dm.testing import SimMachine
from tests.work import instructions

(BLK,) = acrn_dm_device_types()
FEW, MANY = 8, 32
DECODE = cs.COMMAND_IO | cs.COMMAND_MEMORY | cs.COMMAND_MASTER


def machine_with(disks: int) -> SimMachine:
    machine = SimMachine()
    for i in range(disks):
        machine.add(BLK, "nodisk", slot=i // 8, func=i % 8)
    return machine


def start(disks: int) -> int:
    """Instructions to bring up the bus, the disks and their drivers."""
    with machine_with(disks) as machine:

        def up() -> None:
            machine.start()
            for i in range(disks):
                machine.driver(i // 8, i % 8).start()

        return instructions(up)


def toggle(disks: int) -> int:
    """Instructions to switch decoding of a running disk off and on."""
    with machine_with(disks) as machine:
        drivers = [machine.driver(i // 8, i % 8) for i in range(disks)]
        for driver in drivers:
            driver.start()
        bdf = Bdf(slot=disks // 2 // 8, func=disks // 2 % 8)

        def off_and_on() -> None:
            machine.bus.config_write(bdf, cs.COMMAND, 2, 0)
            machine.bus.config_write(bdf, cs.COMMAND, 2, DECODE)

        cost = instructions(off_and_on)
        assert machine.bus.config_read(bdf, cs.COMMAND, 2) == DECODE
        return cost


def dry_run(disks: int) -> int:
    """Instructions to build the machine and to say what it is."""
    specs = tuple(DeviceSpec(bdf=Bdf(slot=i // 8, func=i % 8), kind="virtio-blk", text="nodisk") for i in range(disks))
    config = MachineConfig(name="many", hypervisor="sim", devices=specs)
    plugins = make_plugin_manager(entry_points=False)

    def describe() -> None:
        machine = build(config, plugins, threads=False)
        try:
            machine.check()
            machine.describe()
        finally:
            machine.close()

    return instructions(describe)


def reset(disks: int) -> int:
    """Instructions to reset the machine."""
    with machine_with(disks) as machine:
        for i in range(disks):
            machine.driver(i // 8, i % 8).start()
        return instructions(machine.reset)


@pytest.mark.stress
@pytest.mark.parametrize("cost", [start, dry_run, reset])
def test_machine_of_four_times_the_disks_costs_four_times_as_much(cost: Callable[[int], int]) -> None:
    assert cost(MANY) <= 1.1 * MANY / FEW * cost(FEW)


def test_guest_that_switches_decoding_pays_for_its_device_alone() -> None:
    assert toggle(MANY) <= 1.1 * toggle(FEW)


@pytest.fixture
def eventfds() -> Iterator[Callable[[int], list[int]]]:
    made: list[int] = []

    def make(count: int) -> list[int]:
        made.extend(fds := [make_eventfd() for _ in range(count)])
        return fds

    yield make
    for fd in made:
        os.close(fd)


def bind(machine: SimMachine, fds: list[int], base: int) -> None:
    for n, fd in enumerate(fds):
        machine.vm.ioeventfd(IoEventFd(fd=fd, space=Space.MMIO, addr=base + 4 * n, len=2), True)
        machine.vm.irqfd(IrqFd(fd=fd, target=MsiMessage(addr=0xFEE0_0000, data=base + n)), True)


def test_binding_an_eventfd_costs_the_same_whatever_is_bound(eventfds: Callable[[int], list[int]]) -> None:
    with SimMachine() as machine:
        machine.start()
        first = instructions(lambda: bind(machine, eventfds(1), 0x1000))
        bind(machine, eventfds(100), 0x2000)
        assert instructions(lambda: bind(machine, eventfds(1), 0x1800)) <= 1.1 * first


def test_kick_finds_its_eventfd_without_looking_at_the_others(eventfds: Callable[[int], list[int]]) -> None:
    with SimMachine() as machine:
        machine.start()
        bind(machine, eventfds(1), 0x8000_1000)
        first = instructions(lambda: machine.vm.mmio_write(0x8000_1000, 2, 0))
        bind(machine, eventfds(100), 0x8000_2000)
        assert instructions(lambda: machine.vm.mmio_write(0x8000_2000 + 4 * 99, 2, 0)) <= 1.1 * first
