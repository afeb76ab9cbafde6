"""A foreign function as a driver sees it, and what its server is told."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.machine.device_memory import add_memory
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRegion
from acrn_dm.testing import SimMachine
from acrn_dm.testing.guest_pci import GuestFunction
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.fake_server import (
    CONFIG,
    DMA_MAP,
    DMA_UNMAP,
    NO_REPLY,
    READ,
    REGION,
    RESET,
    SET_IRQS,
    VECTORS,
    WRITE,
    FakeServer,
    Request,
    config_space,
    msix,
)
from tests.patience import comes_true

SLOT = 6
VENDOR_AT, EXPRESS_AT, MSI_AT = 0x60, 0x80, 0xC0
EXPRESS = struct.pack("<BBHI", 0x10, 0, 0x0002, 1 << 28) + bytes(0x34)
VENDOR = bytes([9, 0, 8, 1, 2, 3, 4, 5])
MSI_BODY = struct.pack("<BBHIH", 5, 0, 2 << 1, 0, 0)
NONE, EVENTFD, UNMASK, TRIGGER = 1, 4, 16, 32
INTX, MSI, MSIX = range(3)
FLR = 1 << 15


@attrs.frozen
class World:
    """A machine, the function in it, and its server."""

    machine: SimMachine
    server: FakeServer
    function: GuestFunction

    def irqs(self, index: int) -> list[tuple[int, ...]]:
        """Flags, start and count of each SET_IRQS of that kind of interrupts; forgets them all."""
        told = [struct.unpack("<IIIII", payload)[1:] for payload in self.server.payloads(SET_IRQS)]
        self.server.seen.clear()
        return [(flags, start, count) for flags, kind, start, count in told if kind == index]

    @property
    def line(self) -> bool:
        routes = {slot: gsi for slot, _, gsi in self.machine.bus.prt()}
        return self.machine.vm.line(routes[SLOT])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = config_space(size=4096, c40=msix(), c60=VENDOR, c80=EXPRESS, cc0=MSI_BODY)
    config[0x100:0x104] = struct.pack("<I", 0x0001_0003)
    server = FakeServer(tmp_path / "s", config=config, sizes={0: 4096, 1: 4096, 2: 100}, irqs=(1, 4, VECTORS, 0, 0))
    config[0x18] = 1  # ports
    with server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        yield World(machine, server, machine.function(SLOT))


def test_identity_and_bars_are_the_server_s(world: World) -> None:
    function = world.function
    assert function.read(0, 4) == 0x4321_1D0F
    assert function.read(8, 4) == 0x0880_0007
    assert function.read(0x2C, 4) == 0x8765_1D0F
    bars = {index: (bar.size, bar.io) for index, bar in function.bars.items()}
    assert bars == {0: (4096, False), 1: (4096, False), 2: (128, True)}
    assert function.read(0x30, 4) == 0


def test_function_without_a_pin_shows_none(tmp_path: Path) -> None:
    config = config_space()
    config[0x3D] = 0
    with FakeServer(tmp_path / "s", config=config) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        assert machine.function(SLOT).read(0x3D, 1) == 0


def test_registers_are_reached_in_all_sizes(world: World) -> None:
    world.server.bars[0][:8] = bytes(range(8))
    for size in (1, 2, 4, 8):
        assert world.function.bar_read(0, 0, size) == int.from_bytes(bytes(range(size)), "little")
        world.function.bar_write(0, 16, size, 0x1122334455667788 & (1 << 8 * size) - 1)
        assert world.function.bar_read(0, 16, size) == 0x1122334455667788 & (1 << 8 * size) - 1
    assert world.function.bar_read(2, 96, 4) == 0
    assert world.function.bar_read(2, 100, 4) == 0xFFFF_FFFF  # of the BAR, but not of the region


def test_writes_to_bars_are_posted_and_those_to_the_configuration_space_are_not(world: World) -> None:
    world.server.seen.clear()
    world.function.bar_write(0, 0, 4, 1)
    world.function.write(VENDOR_AT + 4, 1, 7)
    world.function.bar_read(0, 0, 4)
    flags = [request.flags & NO_REPLY for request in world.server.seen if request.command == WRITE]
    assert flags == [NO_REPLY, 0]


def test_capabilities_are_where_they_are_and_their_registers_the_server_s(world: World) -> None:
    found = [(capability.id, capability.at) for capability in world.function.walk_capabilities()]
    assert found == [(0x11, 0x40), (9, VENDOR_AT), (0x10, EXPRESS_AT), (5, MSI_AT)]
    assert world.function.read(VENDOR_AT + 2, 2) == 0x0108
    assert world.function.read(VENDOR_AT + 4, 4) == 0x05040302
    world.server.config[VENDOR_AT : VENDOR_AT + 4] = b"\x42\x40\x11\x22"
    assert world.function.read(VENDOR_AT, 4) == 0x2211_8009  # its list stays
    world.function.write(VENDOR_AT + 4, 2, 0xBEEF)
    assert world.server.config[VENDOR_AT + 4 : VENDOR_AT + 6] == b"\xef\xbe"


def test_express_endpoint_becomes_an_integrated_one_with_its_extended_space(world: World) -> None:
    assert world.function.read(EXPRESS_AT + 2, 2) == 0x0092
    bus, bdf = world.machine.bus, next(f for f in world.machine.bus.functions if f.context.bdf.slot == SLOT).context.bdf
    assert bus.config_read(bdf, 0x100, 4) == 0x0001_0003
    bus.config_write(bdf, 0x104, 4, 0x1234_5678)
    assert bus.config_read(bdf, 0x104, 2) == 0x5678


def test_server_hears_of_the_command_register_and_of_no_address(world: World) -> None:
    assert world.server.config[4] == 7  # as the guest finds it
    world.server.seen.clear()
    world.function.write(4, 2, 0x406)
    world.function.move_bar(0, 0xC000_0000)
    assert world.server.config[4:6] == b"\x06\x04"
    written = [REGION.unpack_from(payload) for payload in world.server.payloads(WRITE)]
    assert {offset for offset, region, _ in written if region == CONFIG} == {4}


def test_server_is_told_of_the_command_register_before_a_guest_writes_it(tmp_path: Path) -> None:
    def reset(server: FakeServer, request: Request) -> None:
        server.config[4] = 0
        server.reply(request)

    with FakeServer(tmp_path / "s", {RESET: reset}) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        machine.start()
        assert server.config[4] == 7
        machine.reset()
        assert server.config[4] == 7


def test_memory_is_shared_by_its_file(world: World) -> None:
    (payload,) = world.server.payloads(DMA_MAP)
    assert struct.unpack("<IIQQQ", payload) == (32, 3, 0, 0, 16 << 20)
    (fd,) = next(request.fds for request in world.server.seen if request.command == DMA_MAP)
    with mmap.mmap(fd, 16 << 20) as memory:
        memory[0x1000:0x1005] = b"there"
    assert world.machine.memory.read(0x1000, 5) == b"there"


def test_vectors_have_eventfds_while_messages_are_on(world: World) -> None:
    world.server.seen.clear()
    world.function.enable_msix()
    assert world.irqs(MSIX) == [(EVENTFD | TRIGGER, 0, VECTORS)]
    world.function.mask(1)
    world.function.mask(1, False)
    assert world.irqs(MSIX) == []
    for vector in (0, 3, 3):
        world.server.interrupt(2, vector)
        world.machine.settle()
    seen = {vector: world.machine.interrupts[world.function.message_data(vector)] for vector in range(VECTORS)}
    assert seen == {0: 1, 1: 0, 2: 0, 3: 2}
    world.function.enable_msix(False)
    assert world.irqs(MSIX) == [(NONE | TRIGGER, 0, 0)]
    world.function.enable_msix()
    assert world.irqs(MSIX) == [(EVENTFD | TRIGGER, 0, VECTORS)]


def test_vector_that_is_masked_is_pending_here(world: World) -> None:
    world.function.enable_msix()
    world.function.mask(2)
    world.server.interrupt(2, 2)
    eventually(world.machine, lambda: world.function.pending(2))
    assert not world.machine.interrupts
    world.function.mask(2, False)
    world.machine.settle()
    assert world.machine.interrupts[world.function.message_data(2)] == 1


def test_table_is_not_the_server_s(world: World) -> None:
    world.server.seen.clear()
    world.function.write_vector(1, 0x77)
    assert world.function.bar_read(1, 24, 4) == 0x77
    assert world.server.payloads(READ) == world.server.payloads(WRITE) == []
    world.function.bar_write(1, 0x100, 4, 5)  # beside the table
    assert world.function.bar_read(1, 0x100, 4) == 5
    assert world.server.payloads(READ)


def test_several_vectors_of_msi_are_eventfds(world: World) -> None:
    world.server.seen.clear()
    for offset, size, value in ((4, 4, 0xFEE0_0000), (8, 2, 0x4320), (2, 2, 1 | 2 << 4)):
        world.function.write(MSI_AT + offset, size, value)
    assert world.irqs(MSI) == [(EVENTFD | TRIGGER, 0, 4)]
    world.server.interrupt(1, 3)
    eventually(world.machine, lambda: world.machine.interrupts[0x4323] == 1)


def test_pin_is_let_go_by_an_access_to_a_bar(world: World) -> None:
    world.server.seen.clear()
    world.server.interrupt(0)
    eventually(world.machine, lambda: world.line)
    world.function.read(VENDOR_AT + 4, 1)
    assert world.line
    world.function.bar_read(0, 0, 4)
    assert not world.line
    assert comes_true(lambda: world.irqs(INTX) == [(NONE | UNMASK, 0, 1)])
    world.function.bar_read(0, 0, 4)
    assert world.irqs(INTX) == []


@pytest.mark.parametrize("way", ["FLR", "reboot"])
def test_reset_is_one_of_the_server(world: World, way: str) -> None:
    world.server.interrupt(INTX)
    eventually(world.machine, lambda: world.function.interrupt_status)
    world.function.enable_msix()
    world.server.seen.clear()
    if way == "FLR":
        world.function.write(EXPRESS_AT + 8, 2, FLR)
    else:
        world.machine.reset()
    assert len(world.server.payloads(RESET)) == 1
    assert not world.function.msix_enabled
    assert not world.function.interrupt_status
    assert world.server.config[4] == 7
    assert not world.server.config[EXPRESS_AT + 9] & 0x80
    assert set(world.server.eventfds) == {(0, 0)}
    assert world.function.read(0, 4) == 0x4321_1D0F


def test_memory_that_a_device_brings_is_shared_too(world: World) -> None:
    fd = os.memfd_create("device")
    os.ftruncate(fd, 2 << 20)
    gpa = add_memory(world.machine.vm, world.machine.memory, fd, 2 << 20)
    os.close(fd)
    told = [struct.unpack("<IIQQQ", payload) for payload in world.server.payloads(DMA_MAP)]
    assert told == [(32, 3, 0, 0, 16 << 20), (32, 3, 0, gpa, 2 << 20)]


def bring(machine: SimMachine) -> MemoryRegion:
    """Memory of a device's."""
    fd = os.memfd_create("device")
    os.ftruncate(fd, 2 << 20)
    add_memory(machine.vm, machine.memory, fd, 2 << 20)
    os.close(fd)
    return machine.memory.regions[-1]


def take_away(memory: GuestMemory, region: MemoryRegion, released: Callable[[], None]) -> None:
    """A generation without *region*; *released* is called when nobody has it any more."""
    left = tuple(one for one in memory.regions if one is not region)
    with memory.generations.change():
        before, memory._map, memory.regions = memory._map, MemoryMap([(r.gpa, r.mapping) for r in left]), left
        memory.generations.release(before.close)
        memory.generations.release(region.mapping.close)
        memory.generations.release(released)


def test_memory_that_goes_is_given_back_before_it_is_anything_else(world: World) -> None:
    region = bring(world.machine)
    told: list[list[bytes]] = []
    take_away(world.machine.memory, region, lambda: told.append(world.server.payloads(DMA_UNMAP)))
    assert told == [[struct.pack("<IIQQ", 24, 0, region.gpa, region.size)]]
    world.machine.vm.unmap_memory(region)
    again = bring(world.machine)
    assert again.gpa == region.gpa
    assert len(world.server.payloads(DMA_MAP)) == 3
    os.close(region.fd)


def test_server_that_keeps_memory_which_is_gone_is_left(world: World) -> None:
    region = bring(world.machine)
    world.server.answers[DMA_UNMAP] = lambda server, request: server.reply(request, error=16)
    told: list[int] = []
    take_away(world.machine.memory, region, lambda: told.append(1))
    assert told == [1]
    world.machine.settle()
    ((_, error),) = world.machine.failures
    assert "keeps memory" in str(error)
    world.machine.failures.clear()
    os.close(region.fd)
