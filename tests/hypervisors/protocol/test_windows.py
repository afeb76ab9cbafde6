"""Memory that comes and goes while the guest runs, in the place of registers."""

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from acrn_dm.base.process import _shortened
from acrn_dm.contract.hypervisor import ReplacesMemory
from acrn_dm.memory.guest_memory import MemoryRegion
from tests.hypervisors.guest_program import Load, Out, Store
from tests.hypervisors.guests import Guest

pytestmark = pytest.mark.not_on("hsm", "it keeps the guest's pages")

WINDOW = 0xD000_0000
PORT = 0x500
SIZE = 4 * mmap.PAGESIZE
NEXT = Out(PORT, 1, 1)


@pytest.fixture
def region() -> Iterator[MemoryRegion]:
    fd = os.memfd_create("window")
    os.ftruncate(fd, SIZE)
    with mmap.mmap(fd, SIZE) as mapping:
        yield MemoryRegion(gpa=WINDOW, size=SIZE, fd=fd, mapping=mapping, watched=True)
    os.close(fd)


def at_each_turn(guest: Guest, *turns: Any) -> None:
    """Have what is said done, one after the other, when the guest writes its port."""
    left = list(turns)
    guest.recorder.on_access = lambda access: left.pop(0)() if access[:2] == ("out", PORT) else None


def test_guest_reaches_memory_while_it_is_there_and_registers_else(guest: Guest, region: MemoryRegion) -> None:
    vm = guest.vm
    assert isinstance(vm, ReplacesMemory)
    guest.recorder.answers[WINDOW] = 0x33
    at_each_turn(guest, lambda: vm.map_memory(region), lambda: vm.unmap_memory(region))
    region.mapping[:4] = b"\x22\0\0\0"
    guest.start(Load(WINDOW, 4), NEXT, Load(WINDOW, 4), Store(WINDOW + 8, 4, 0x44), NEXT, Load(WINDOW, 4))
    out = ("out", PORT, 1, 1)
    assert guest.finish() == [("load", WINDOW, 4), out, out, ("load", WINDOW, 4)]
    assert guest.results() == [0x33, 0x22, 0x33]
    assert region.mapping[8] == 0x44


def test_what_is_not_there_is_taken_away_without_a_word(guest: Guest, region: MemoryRegion) -> None:
    assert isinstance(guest.vm, ReplacesMemory)
    guest.vm.unmap_memory(region)


@pytest.mark.not_on("sim", "the test's processor is this process")
def test_guest_goes_on_with_zeros_when_the_file_has_been_cut(guest: Guest, region: MemoryRegion) -> None:
    vm, told = guest.vm, os.eventfd(0, os.EFD_NONBLOCK)
    assert isinstance(vm, ReplacesMemory)
    watch = _shortened.watch(region.mapping, told)
    region.mapping[-8:-4] = b"\x22\0\0\0"
    vm.map_memory(region)
    at_each_turn(guest, lambda: os.ftruncate(region.fd, 0))
    guest.start(Load(WINDOW + SIZE - 8, 4), NEXT, Load(WINDOW + SIZE - 8, 4), Load(WINDOW, 4))
    seen = guest.finish()
    assert guest.results() == [0x22, 0, 0]
    assert guest.recorder.events == []
    if len(seen) == 1:  # a KVM that emulates instructions asks the registers instead
        assert os.eventfd_read(told) >= 1
    vm.unmap_memory(region)
    _shortened.unwatch(watch)
    os.close(told)
