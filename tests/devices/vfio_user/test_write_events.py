"""Eventfds that a server offers for writes (``ioeventfd``), and offers that it should not make."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.events import eventfd
from acrn_dm.testing import GuestFunction, SimMachine
from tests.backends.user.user_rig import eventually, open_descriptors
from tests.devices.vfio_user.fake_server import IO_FDS, NO_REPLY, WRITE, Answer, FakeServer, Request, config_space
from tests.devices.vfio_user.hostile_answers import fails, says
from tests.patience import comes_true

SLOT = 6
HEADER = struct.Struct("<IIII")
IOEVENTFD, IOREGIONFD, MATCH = 0, 1, 1


def place(offset: int, size: int, descriptor: int = 0, match: int | None = None, type_: int = IOEVENTFD) -> bytes:
    """As the specification has it."""
    flags = 0 if match is None else MATCH
    return struct.pack("<QQIIIIQ", offset, size, descriptor, type_, flags, 0, match or 0)


def longer(offset: int, size: int, match: int) -> bytes:
    """As libvfio-user has it."""
    return struct.pack("<QQIIIIQQ", offset, size, 0, IOEVENTFD, MATCH, 0, 0, match)


def offer(*places: bytes, fds: tuple[int, ...] = (), of: int = 0, index: int = 0, argsz: int | None = None) -> Answer:
    """*places* of BAR *of*, told as if *index* was asked for; none for all others."""

    def answer(server: FakeServer, request: Request) -> None:
        asked = struct.unpack_from("<I", request.payload, 8)[0]
        body = b"".join(places)
        if asked == of:
            needed = HEADER.size + len(body) if argsz is None else argsz
            server.reply(request, HEADER.pack(needed, 0, index, len(places)) + body, fds=fds)
        else:
            server.reply(request, HEADER.pack(16, 0, asked, 0))

    return answer


@attrs.define(eq=False)
class World:
    """A machine, its foreign function, and the two eventfds of its server."""

    machine: SimMachine
    server: FakeServer
    function: GuestFunction
    fds: tuple[int, int]

    def written(self) -> list[tuple[bytes, int]]:
        """Data and flags of the messages since the last look that write."""
        with self.server.changed:
            found = [(r.payload[16:], r.flags & NO_REPLY) for r in self.server.seen if r.command == WRITE]
            self.server.seen.clear()
        return found

    def counts(self) -> list[int]:
        """How often each eventfd was signalled since the last look."""
        return [_count(fd) for fd in self.fds]


def _count(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., World]]:
    fds = (os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK))
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    server = FakeServer(tmp_path / "s", config=config_space(bars={0: 0, 1: 1}), sizes={0: 4096, 1: 64})
    server.irqs = (1, 0, 0, 0, 0)
    with server, SimMachine() as machine:

        def make(*places: bytes, of: int = 0) -> World:
            server.answers[IO_FDS] = offer(*places, fds=fds, of=of, index=of)
            machine.add("vfio-user", f"socket={server.path},ioeventfd", slot=SLOT)
            world = World(machine, server, machine.function(SLOT), fds)
            world.function.bar_read(of, 0, 1)
            world.written()
            return world

        yield make
    assert comes_true(lambda: open_descriptors() <= before)
    for fd in fds:
        os.close(fd)


def test_write_is_a_signal_and_no_message(made: Callable[..., World]) -> None:
    world = made(place(0x100, 4), place(0x200, 0, 1))
    for _ in range(3):
        world.function.bar_write(0, 0x100, 4, 7)
    world.function.bar_write(0, 0x200, 2, 7)
    assert world.counts() == [3, 1]
    assert world.written() == []


def test_other_writes_are_messages_that_are_waited_for(made: Callable[..., World]) -> None:
    world = made(place(0x100, 4))
    world.function.bar_write(0, 0x100, 2, 7)
    world.function.bar_write(0, 0x104, 4, 8)
    assert world.written() == [(b"\7\0", 0), (b"\x08\0\0\0", 0)]
    assert world.counts() == [0, 0]


@pytest.mark.parametrize("form", [lambda o, s, m: place(o, s, match=m), longer], ids=["specification", "libvfio-user"])
def test_value_decides_where_one_is_named(form: Callable[[int, int, int], bytes], made: Callable[..., World]) -> None:
    world = made(form(0x100, 2, 5))
    world.function.bar_write(0, 0x100, 2, 4)
    world.function.bar_write(0, 0x100, 2, 5)
    assert world.counts() == [1, 0]
    assert world.written() == [(b"\4\0", 0)]


def test_signals_follow_their_bar(made: Callable[..., World]) -> None:
    world = made(place(0x100, 4))
    before = world.function.bars[0].base
    world.function.move_bar(0, 0xC000_0000)
    world.function.bar_write(0, 0x100, 4, 1)
    assert world.counts() == [1, 0]
    world.machine.vm.mmio_write(before + 0x100, 4, 1)
    world.function.write(4, 2, 0)
    world.machine.vm.mmio_write(0xC000_0100, 4, 1)
    assert world.counts() == [0, 0]
    world.machine.reset()
    world.written()
    for _ in range(2):
        world.machine.vm.mmio_write(before + 0x100, 4, 1)
    assert world.counts() == [1, 0]
    assert world.written() == [(b"\1\0\0\0", 0)]  # the first access after a reset


def test_ports_have_them_too(made: Callable[..., World]) -> None:
    world = made(place(0x10, 1), of=1)
    world.function.bar_write(1, 0x10, 1, 1)
    assert world.counts() == [1, 0]


def test_what_the_hypervisor_does_not_take_is_a_message(made: Callable[..., World]) -> None:
    world = made(place(0x100, 4), place(0x100, 4, 1))  # two at one place
    world.function.bar_write(0, 0x100, 4, 7)
    assert world.counts() == [1, 0]
    assert world.machine.failures == []


@pytest.mark.parametrize("answer", [fails(95), offer(), offer(place(0, 4), argsz=8192), offer(place(0, 4, type_=1))])
def test_server_that_has_none_gets_posted_messages(answer: Answer, tmp_path: Path) -> None:
    with FakeServer(tmp_path / "s", {IO_FDS: answer}) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path},ioeventfd", slot=SLOT)
        machine.function(SLOT).bar_write(0, 0, 4, 1)
        assert comes_true(lambda: any(r.flags & NO_REPLY for r in server.seen if r.command == WRITE))


def test_nobody_is_asked_who_need_not_be(tmp_path: Path) -> None:
    with FakeServer(tmp_path / "s") as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
        machine.start()
        assert not server.payloads(IO_FDS)


def test_signals_end_with_their_server(made: Callable[..., World]) -> None:
    world = made(place(0x100, 4))
    function = world.function
    world.server.hang_up()
    eventually(world.machine, lambda: bool(world.machine.failures))
    world.machine.settle()
    function.bar_write(0, 0x100, 4, 1)
    assert world.counts() == [0, 0]


BAD = {
    "another region": ("of region 0 told of region 2", offer(index=2)),
    "no descriptor": ("is descriptor 0 of 0", offer(place(0, 4))),
    "behind the end": ("for 0x4 bytes at 0xffe of its BAR 0, which has 0x1000", offer(place(0xFFE, 4))),
    "at no place": ("for 0x0 bytes at 0x1000", offer(place(0x1000, 0))),
    "far away": ("at 0xffffffffffffffff", offer(place(2**64 - 1, 1))),
    "three bytes": ("for 0x3 bytes", offer(place(0, 3))),
    "a value of no size": ("for a value of no size", offer(place(0, 0, match=1))),
    "short places": ("2 places in 60 bytes", offer(place(0, 4), bytes(4))),
    "too few bytes": ("answered with 12 bytes", says(bytes(12))),
    "too many bytes": ("answered with 5000 bytes", says(bytes(5000))),
}


@pytest.mark.parametrize("name", BAD)
def test_offer_that_can_not_be_is_one_line(name: str, tmp_path: Path) -> None:
    words, answer = BAD[name]
    before = open_descriptors()
    with FakeServer(tmp_path / "s", {IO_FDS: answer}) as server:
        machine = SimMachine()
        machine.add("vfio-user", f"socket={server.path},ioeventfd", slot=SLOT)
        with pytest.raises(HostError, match="vfio-user-6:0: vfio-user server at") as caught:
            machine.start()
        machine.close()
    assert words in str(caught.value)
    assert comes_true(lambda: open_descriptors() <= before)


def test_descriptor_that_is_no_eventfd_is_none(tmp_path: Path) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with FakeServer(tmp_path / "s", {IO_FDS: offer(place(0, 4), fds=(fd,))}) as server, SimMachine() as machine:
        machine.add("vfio-user", f"socket={server.path},ioeventfd", slot=SLOT)
        machine.function(SLOT).bar_write(0, 0, 4, 7)
        assert machine.function(SLOT).bar_read(0, 0, 4) == 7
    os.close(fd)
