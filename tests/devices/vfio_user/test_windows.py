"""Parts of BARs that a server has in a file: the guest reaches them without a message, where and while that may be."""

import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.devices.vfio_user.areas import Area, without
from acrn_dm.memory.guest_memory import MemoryRegion
from acrn_dm.testing import SimMachine
from acrn_dm.testing.guest_pci import GuestFunction
from tests.devices.vfio_user.fake_server import (
    CONFIG,
    NO_REPLY,
    READ,
    REGION_INFO,
    WRITE,
    FakeServer,
    config_space,
    msix,
)
from tests.devices.vfio_user.filed_server import AT, MAPPED, PAGE, READ_WRITE, SIZE, Filed, sparse
from tests.patience import comes_true

SLOT = 6
INTX_DISABLE = 1 << 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Filed]:
    with Filed(tmp_path / "s", config=config_space(c40=msix()), sizes={0: SIZE, 1: PAGE}) as server:
        yield server


@pytest.fixture
def machine(server: Filed) -> Iterator[SimMachine]:
    with SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        yield machine


def windows(machine: SimMachine) -> list[tuple[int, int, int]]:
    """Address, length and place in the file of each, in the order of addresses."""
    return sorted((region.gpa, region.size, region.offset) for region in machine.vm.regions if region.watched)


def messages(server: FakeServer) -> int:
    """Accesses to BARs that were seen since this was asked last."""
    found = [request for request in server.seen if request.command in (READ, WRITE)]
    count = sum(struct.unpack_from("<I", request.payload, 8)[0] != CONFIG for request in found)
    server.seen.clear()
    return count


def begun(machine: SimMachine) -> GuestFunction:
    """The function, whose driver has switched its messages on."""
    function = machine.function(SLOT)
    function.enable_msix()
    return function


def test_guest_reaches_the_file_without_a_message(machine: SimMachine, server: Filed) -> None:
    function = begun(machine)
    messages(server)
    os.pwrite(server.file, b"\x11\x22\x33\x44", AT + 0x10)
    assert function.bar_read(0, 0x10, 4) == 0x4433_2211
    function.bar_write(0, SIZE - 8, 8, 0x1122334455667788)
    assert os.pread(server.file, 8, AT + SIZE - 8) == bytes.fromhex("8877665544332211")
    assert messages(server) == 0


def test_window_is_where_the_bar_is(machine: SimMachine, server: Filed) -> None:
    function = begun(machine)
    base = function.bars[0].base
    assert windows(machine) == [(base, SIZE, AT)]
    function.move_bar(0, 0xC000_0000)
    assert windows(machine) == [(0xC000_0000, SIZE, AT)]
    function.write(4, 2, 4)
    assert windows(machine) == []
    function.write(4, 2, 6)
    assert windows(machine) == [(0xC000_0000, SIZE, AT)]
    function.move_bar(0, 0xC000_0000 - SIZE // 2 + SIZE)
    machine.reset()
    assert windows(machine) == []  # until its driver wants messages again
    begun(machine)
    assert windows(machine) == [(base, SIZE, AT)]


def test_areas_of_a_capability_are_windows_and_the_rest_is_messages(machine: SimMachine, server: Filed) -> None:
    unknown = struct.pack("<HHI", 77, 1, REGION_INFO.size + 8)
    server.more = unknown + sparse((0, PAGE), (2 * PAGE, PAGE), (3 * PAGE + 8, 16))
    function = begun(machine)
    base = function.bars[0].base
    assert windows(machine) == [(base, PAGE, AT), (base + 2 * PAGE, PAGE, AT + 2 * PAGE)]
    server.bars[0] = bytearray(SIZE)
    messages(server)
    for page, seen in ((0, 0), (1, 1), (2, 0), (3, 1)):
        function.bar_write(0, page * PAGE, 4, 5)
        assert function.bar_read(0, page * PAGE, 4) == 5
        assert messages(server) == 2 * seen


def test_pages_of_the_vectors_are_no_windows(tmp_path: Path) -> None:
    config = config_space(c40=msix(table=PAGE, pba=2 * PAGE + 0x800))
    with Filed(tmp_path / "s", config=config, sizes={0: SIZE, 1: PAGE}) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        function = begun(machine)
        base = function.bars[0].base
        assert windows(machine) == [(base, PAGE, AT), (base + 3 * PAGE, PAGE, AT + 3 * PAGE)]
        function.write_vector(1, 0x77)
        assert function.bar_read(0, PAGE + 24, 4) == 0x77


def test_there_are_none_while_the_pin_is_released_by_accesses(machine: SimMachine) -> None:
    function = machine.function(SLOT)
    assert windows(machine) == []
    function.write(4, 2, 6 | INTX_DISABLE)
    assert len(windows(machine)) == 1
    function.write(4, 2, 6)
    assert windows(machine) == []
    function.enable_msix()
    assert len(windows(machine)) == 1


def test_function_without_a_pin_has_them_at_once(tmp_path: Path) -> None:
    config = config_space()
    config[0x3D] = 0
    with Filed(tmp_path / "s", config=config, sizes={0: SIZE, 1: PAGE}) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        machine.start()
        assert len(windows(machine)) == 1


def test_writes_are_waited_for_beside_a_window(machine: SimMachine, server: Filed) -> None:
    """The server may look at the file before it looks at its socket."""

    def posted() -> bool:
        function.bar_write(1, 0x100, 4, 1)
        function.bar_read(1, 0x100, 4)  # the write is done then
        return bool([request for request in server.seen if request.command == WRITE][-1].flags & NO_REPLY)

    function = machine.function(SLOT)
    assert posted()
    begun(machine)
    assert not posted()


def test_registers_stay_messages_where_the_hypervisor_takes_no_memory(machine: SimMachine, server: Filed) -> None:
    machine.start()
    machine.vm.fail("map_memory", 22)
    function = begun(machine)
    assert windows(machine) == []
    messages(server)
    function.bar_write(0, 0, 4, 5)
    assert function.bar_read(0, 0, 4) == 5
    assert messages(server) == 2
    function.move_bar(0, 0xC000_0000)
    assert len(windows(machine)) == 1


def _no_file() -> list[int]:
    return []


def _device() -> list[int]:
    return [os.open("/dev/zero", os.O_RDWR)]


def _short() -> list[int]:
    with tempfile.TemporaryFile() as file:
        file.truncate(AT + SIZE - 1)
        return [os.dup(file.fileno())]


def _read_only() -> list[int]:
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(AT + SIZE)
        return [os.open(file.name, os.O_RDONLY)]


@pytest.mark.parametrize("what", [_no_file, _device, _short, _read_only])
def test_registers_stay_messages_without_a_file_that_can_be_mapped(
    machine: SimMachine, server: Filed, what: Callable[[], list[int]]
) -> None:
    server.brings = what()
    server._fds += server.brings
    function = begun(machine)
    assert windows(machine) == []
    function.bar_write(0, 0, 4, 5)
    assert function.bar_read(0, 0, 4) == 5


@pytest.mark.parametrize("flags", [MAPPED | 1, MAPPED | 2, READ_WRITE])
def test_what_may_not_be_read_and_written_is_no_window(machine: SimMachine, server: Filed, flags: int) -> None:
    server.flags = flags
    begun(machine)
    assert windows(machine) == []


HOSTILE = {
    "an area past the end": sparse((3 * PAGE, 2 * PAGE)),
    "an area of almost all there is": sparse((PAGE, (1 << 64) - PAGE)),
    "more areas than are said": sparse((0, PAGE), count=2),
    "too many areas": sparse(count=1 << 31),
    "a capability that leads to itself": struct.pack("<HHI", 7, 1, REGION_INFO.size),
    "a capability past the end": struct.pack("<HHI", 7, 1, 1 << 20),
    "a capability before the first": struct.pack("<HHI", 7, 1, 4),
    "no room for a count": struct.pack("<HHI", 1, 1, 0),
}


@pytest.mark.parametrize("more", HOSTILE.values(), ids=HOSTILE.keys())
def test_description_that_can_not_be_is_told_at_the_start(machine: SimMachine, server: Filed, more: bytes) -> None:
    server.more = more
    with pytest.raises(HostError, match="region"):
        machine.start()


def test_more_than_one_descriptor_is_told_at_the_start(machine: SimMachine, server: Filed) -> None:
    server.brings = [server.file, server.file]
    with pytest.raises(HostError, match="2 descriptors"):
        machine.start()


def test_place_past_the_end_of_all_files_is_told_at_the_start(machine: SimMachine, server: Filed) -> None:
    server.at = (1 << 64) - PAGE
    with pytest.raises(HostError, match="region 0"):
        machine.start()


def test_server_that_shortens_its_file_is_left(machine: SimMachine, server: Filed) -> None:
    function = begun(machine)
    function.bar_write(0, 0, 4, 5)
    os.ftruncate(server.file, AT)
    assert function.bar_read(0, 0, 4) == 0  # zeros have come in its place

    def gone() -> bool:
        machine.settle()
        return windows(machine) == []

    assert comes_true(gone)
    assert function.bar_read(0, 0, 4) == 0xFFFF_FFFF
    ((_, error),) = machine.failures
    assert "shortened" in str(error)
    machine.failures.clear()


def test_next_server_s_file_takes_the_place_of_the_last_one_s(machine: SimMachine, server: Filed) -> None:
    function = begun(machine)
    function.bar_write(0, 0, 4, 5)
    server.fill()
    server.config[:] = config_space(c40=msix())  # as after power-on
    server.hang_up()

    def gone() -> bool:
        machine.settle()
        return windows(machine) == []

    assert comes_true(gone)
    machine.failures.clear()
    machine.reset()
    function = begun(machine)
    assert len(windows(machine)) == 1
    assert function.bar_read(0, 0, 4) == 0
    os.pwrite(server.file, b"\7", AT)
    assert function.bar_read(0, 0, 4) == 7


@pytest.mark.parametrize(
    ("offset", "size", "left"),
    [
        (PAGE, 1, [(0, 1), (2, 2)]),
        (PAGE - 1, 2, [(2, 2)]),
        (0, SIZE, []),
        (SIZE, PAGE, [(0, 4)]),
        (3 * PAGE, 4 * PAGE, [(0, 3)]),
    ],
)
def test_pages_are_taken_out_of_areas(offset: int, size: int, left: list[tuple[int, int]]) -> None:
    whole = Area(offset=0, size=SIZE, at=AT)
    expected = [Area(offset=page * PAGE, size=count * PAGE, at=AT + page * PAGE) for page, count in left]
    assert list(without([whole], offset, size)) == expected


def test_region_knows_when_its_file_was_cut() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(3 * PAGE)
        with mmap.mmap(file.fileno(), PAGE, offset=2 * PAGE) as mapping:
            region = MemoryRegion(gpa=0, size=PAGE, fd=file.fileno(), mapping=mapping, offset=2 * PAGE)
            assert not region.cut
            file.truncate(3 * PAGE - 1)
            assert region.cut
