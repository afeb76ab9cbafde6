"""acrn_dm.machine.device_memory: files that devices bring into the guest's address space."""

import os
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.machine.device_memory import UNIT, add_memory
from acrn_dm.memory.guest_memory import MIB, GuestMemory, MemoryRegion
from acrn_dm.testing import SimMachine

GIB = 1 << 30
WINDOW = 256 * GIB  # where the 64-bit PCI window begins


@pytest.fixture
def machine() -> Iterator[SimMachine]:
    with SimMachine(memory=4 * MIB) as it:
        yield it


def file_of(size: int) -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


def added(machine: SimMachine, size: int, length: int | None = None) -> int:
    """The gpa of a new file of *length* bytes, *size* of which are added; its descriptor is closed."""
    fd = file_of(size if length is None else length)
    try:
        return add_memory(machine.vm, machine.memory, fd, size)
    finally:
        os.close(fd)


def test_memory_is_reached_as_ram_is(machine: SimMachine) -> None:
    gpa = added(machine, UNIT)
    machine.memory.write(gpa + UNIT - 4, b"last")
    assert machine.memory.read(gpa + UNIT - 4, 4) == b"last"
    assert machine.vm.regions[-1].gpa == gpa


def test_places_lie_below_the_pci_window_and_one_another(machine: SimMachine) -> None:
    assert [added(machine, size) for size in (UNIT, 2 * UNIT)] == [WINDOW - UNIT, WINDOW - 3 * UNIT]


def test_reboot_clears_ram_and_leaves_it(machine: SimMachine) -> None:
    gpa = added(machine, UNIT)
    machine.memory.write(gpa, b"kept")
    machine.memory.write(0x1000, b"gone")
    machine.memory.clear()
    machine.memory.clear(in_place=True)
    assert (machine.memory.read(gpa, 4), machine.memory.read(0x1000, 4)) == (b"kept", bytes(4))


def test_discard_leaves_it(machine: SimMachine) -> None:
    gpa = added(machine, UNIT)
    machine.memory.write(gpa, b"kept")
    assert machine.memory.discard(gpa, UNIT) == 0
    assert machine.memory.read(gpa, 4) == b"kept"


@pytest.mark.parametrize(
    ("size", "length", "why"),
    [(UNIT, UNIT - 1, "shorter"), (0, UNIT, "no multiple"), (UNIT + 4096, 2 * UNIT, "no multiple")],
)
def test_file_that_can_not_be_mapped_is_refused(machine: SimMachine, size: int, length: int, why: str) -> None:
    before = machine.memory.regions, set(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match=why):
        added(machine, size, length)
    assert (machine.memory.regions, set(os.listdir("/proc/self/fd"))) == before


def test_more_than_there_is_room_for_is_refused(machine: SimMachine) -> None:
    full = MemoryRegion(gpa=4 * GIB, size=WINDOW - 4 * GIB, fd=-1, mapping=machine.memory.regions[0].mapping)
    crowded = cast(GuestMemory, SimpleNamespace(regions=(full,)))
    fd = file_of(UNIT)
    with pytest.raises(HostError, match="don't fit"):
        add_memory(machine.vm, crowded, fd, UNIT)
    os.close(fd)


def test_more_regions_are_reached_than_are_found_at_once(machine: SimMachine) -> None:
    places = [added(machine, UNIT) for _ in range(10)]
    for number, gpa in enumerate(places):
        machine.memory.write(gpa + UNIT - 1, bytes([number]))
    rings = machine.memory.map
    assert [rings.read(gpa + UNIT - 1, 1) for gpa in places] == [bytes([number]) for number in range(10)]


def test_hypervisor_that_keeps_pages_refuses(machine: SimMachine) -> None:
    machine.vm.pins_memory = True
    with pytest.raises(HostError, match="the hypervisor keeps"):
        added(machine, UNIT)
