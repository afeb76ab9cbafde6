"""What every hypervisor does with a guest's accesses and with its memory; see ``base``."""

import errno

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.guest_program import (
    In,
    Load,
    Out,
    OutString,
    Store,
)
from tests.hypervisors.guests import Guest
from tests.hypervisors.protocol.setting import (
    PORT,
    WINDOW,
)

# Accesses


@pytest.mark.parametrize("size", [1, 2, 4])
def test_out_reaches_dispatch_with_port_size_and_value(guest: Guest, size: int) -> None:
    guest.start(Out(PORT, size, 0x1122_3344 & (1 << 8 * size) - 1))
    assert guest.finish() == [("out", PORT, size, 0x1122_3344 & (1 << 8 * size) - 1)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_in_gives_the_guest_what_dispatch_answers(guest: Guest, size: int) -> None:
    guest.recorder.answers[PORT] = 0x8899_AABB
    guest.start(In(PORT, size))
    assert guest.finish() == [("in", PORT, size)]
    assert guest.results() == [0x8899_AABB & (1 << 8 * size) - 1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_out_gives_one_access_an_element_in_order(guest: Guest, size: int) -> None:
    guest.start(OutString(PORT, size, bytes(range(1, 17))))
    elements = [int.from_bytes(bytes(range(i + 1, i + 1 + size)), "little") for i in range(0, 16, size)]
    assert guest.finish() == [("out", PORT, size, value) for value in elements]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_store_reaches_dispatch_with_address_size_and_value(guest: Guest, size: int) -> None:
    value = 0x8877_6655_4433_2211 & (1 << 8 * size) - 1
    guest.start(Store(WINDOW + 0x10, size, value))
    assert guest.finish() == [("store", WINDOW + 0x10, size, value)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_load_gives_the_guest_what_dispatch_answers(guest: Guest, size: int) -> None:
    guest.recorder.answers[WINDOW] = 0xF1F2_F3F4_F5F6_F7F8
    guest.start(Load(WINDOW, size))
    assert guest.finish() == [("load", WINDOW, size)]
    assert guest.results() == [0xF1F2_F3F4_F5F6_F7F8 & (1 << 8 * size) - 1]


def test_ram_access_does_not_reach_dispatch(guest: Guest) -> None:
    guest.start(Store(0x20_0000, 8, 0x0123_4567_89AB_CDEF), Load(0x20_0004, 4))
    assert guest.finish() == []
    assert guest.results() == [0x0123_4567]
    assert guest.memory.read(0x20_0000, 8) == bytes.fromhex("efcdab8967452301")


# Memory


def test_region_mapped_later_is_ram(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=WINDOW, size=0x1000)])
    guest.vm.map_memory(more.regions[0])
    more.write(WINDOW, b"\x2a")
    guest.start(Load(WINDOW, 1))
    guest.finish()
    assert guest.results() == [0x2A]
    guest.vm.close()
    more.close()


def test_overlapping_region_is_eexist(guest: Guest) -> None:
    more = GuestMemory.allocate([MemoryRange(gpa=0x1000, size=0x1000)])
    with pytest.raises(HostError) as caught:
        guest.vm.map_memory(more.regions[0])
    assert caught.value.err == errno.EEXIST
    more.close()
