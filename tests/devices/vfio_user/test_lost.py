"""Servers that fail while the guest runs: the function reads as ones, the log says why, and the machine goes on."""

import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.vfio_user import link
from acrn_dm.testing import SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.fake_server import (
    DMA_READ,
    HEADER,
    INFO,
    READ,
    REPLY,
    SET_IRQS,
    WRITE,
    Answer,
    FakeServer,
    Request,
)
from tests.devices.vfio_user.hostile_answers import ends, fails, floods, header, raw, says, silent

SLOT, OTHER = 6, 7
ONES = 0xFFFF_FFFF
LOST = "the guest finds its function gone"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path / "s") as it:
        yield it


@pytest.fixture
def machine(server: FakeServer, tmp_path: Path) -> Iterator[SimMachine]:
    with FakeServer(tmp_path / "other"), SimMachine() as it:
        it.add("vfio-user", f"socket={server.path}", slot=SLOT)
        it.add("vfio-user", f"socket={tmp_path / 'other'}", slot=OTHER)
        it.start()
        yield it


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of a client that waits for 0.3 s in place of ten."""
    monkeypatch.setattr(link, "ANSWER_S", 0.3)
    monkeypatch.setattr("acrn_dm.backends.wire.vfio_user.channel.SEND_MS", 300)
    return caplog


FAULTS: dict[str, tuple[str, Answer]] = {
    "the end": ("the connection was closed", ends),
    "another number": ("another number", header(READ, later=1)),
    "too few bytes": ("brought other ones", says(bytes(3))),
    "too many bytes": ("brought other ones", lambda s, r: s.reply(r, r.payload + bytes(5))),
    "descriptors": ("answered with 3 descriptors", says(bytes(20), 3)),
    "no message": ("with flags", raw(lambda r: b"\xff" * 64)),
    "silence": ("REGION_READ was not answered within 0.3 s", silent),
    "questions": ("REGION_READ was not answered within 0.3 s|does not read", floods),
}


@pytest.mark.parametrize("where", ["BAR", "configuration space"])
@pytest.mark.parametrize("name", FAULTS)
def test_server_that_breaks_the_protocol_costs_its_function_alone(
    name: str, where: str, machine: SimMachine, server: FakeServer, impatient: pytest.LogCaptureFixture
) -> None:
    function, other, caplog = machine.function(SLOT), machine.function(OTHER), impatient
    assert set(function.bars) == set(other.bars) == {0, 1}
    words, server.answers[READ] = FAULTS[name]
    read = (lambda: function.bar_read(0, 8, 4)) if where == "BAR" else (lambda: function.read(0x50, 4))
    assert read() == ONES
    assert read() == ONES
    function.bar_write(0, 8, 4, 1)
    function.write(4, 2, 0)
    assert function.read(0, 4) == ONES
    told = [record for record in caplog.records if LOST in record.message]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert any(part in told[0].message for part in words.split("|")), told[0].message
    assert "vfio-user-6:0" in told[0].message
    assert str(server.path) in told[0].message
    assert len(machine.failures) == 1
    assert other.read(0, 4) == 0x4321_1D0F
    machine.reset()
    assert function.read(0, 4) == ONES


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEADER.pack(9, INFO, 16, REPLY, 0), "answered unasked"),
        (HEADER.pack(9, DMA_READ, 5, 0, 0), "announces 5 bytes"),
        (b"", "the connection was closed"),
    ],
)
def test_server_that_speaks_out_of_turn_is_lost_at_once(
    data: bytes, words: str, server: FakeServer, machine: SimMachine, caplog: pytest.LogCaptureFixture
) -> None:
    function = machine.function(SLOT)
    server.send(data) if data else server.hang_up()
    eventually(machine, lambda: LOST in caplog.text)
    assert words in caplog.text
    assert function.read(0, 4) == ONES


def test_error_is_the_guest_s_to_see_and_no_end(
    server: FakeServer, machine: SimMachine, caplog: pytest.LogCaptureFixture
) -> None:
    function = machine.function(SLOT)
    server.answers[READ] = fails(5)
    assert function.bar_read(0, 8, 4) == ONES
    del server.answers[READ]
    assert function.bar_read(0, 8, 4) == 0
    server.answers[WRITE] = fails(5)
    function.write(0x50, 1, 1)
    assert "was refused" in caplog.text
    assert LOST not in caplog.text


def test_pin_of_a_server_that_is_gone_is_let_go(server: FakeServer, machine: SimMachine) -> None:
    routes = {slot: gsi for slot, _, gsi in machine.bus.prt()}
    server.interrupt(0)
    eventually(machine, lambda: machine.vm.line(routes[SLOT]))
    server.hang_up()
    eventually(machine, lambda: not machine.vm.line(routes[SLOT]))


def test_vector_that_is_refused_is_silent_and_said(
    server: FakeServer, machine: SimMachine, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[SET_IRQS] = fails(22)
    machine.function(SLOT).enable_msix()
    assert "DEVICE_SET_IRQS was refused" in caplog.text
    assert machine.function(SLOT).read(0, 4) == 0x4321_1D0F


def test_server_that_reads_nothing_holds_up_nobody_else(
    server: FakeServer, machine: SimMachine, impatient: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()

    def stands(server: FakeServer, request: Request) -> None:
        over.wait(20)

    function, other, caplog = machine.function(SLOT), machine.function(OTHER), impatient
    server.answers[WRITE] = stands
    for _ in range(20_000):
        if LOST in caplog.text:
            break
        function.bar_write(0, 0, 4, 1)
    over.set()
    assert "does not read what it is sent" in caplog.text
    assert function.bar_read(0, 0, 4) == ONES
    assert other.bar_read(0, 0, 4) == 0


def test_question_of_a_server_is_answered_or_refused(server: FakeServer, machine: SimMachine) -> None:
    machine.memory.write(0x1000, b"guest")

    def ask(command: int, address: int, count: int, data: bytes = b"") -> tuple[int, bytes]:
        question = struct.pack("<QQ", address, count) + data
        server.send(HEADER.pack(3, command, 16 + len(question), 0, 0) + question)
        eventually(machine, lambda: 3 in server.replies)
        return server.replies.pop(3)

    place = struct.pack("<QQ", 0x1000, 5)
    assert ask(11, 0x1000, 5) == (0, place + b"guest")
    assert ask(12, 0x1000, 5, b"other") == (0, place)
    assert machine.memory.read(0x1000, 5) == b"other"
    assert ask(11, 0xFFFF_F000, 4096) == (14, b"")
    assert ask(11, (16 << 20) - 2, 4) == (14, b"")
    assert ask(11, 2**64 - 2, 4) == (14, b"")
    assert ask(12, (16 << 20) - 2, 4, b"over") == (14, b"")
    assert machine.memory.read((16 << 20) - 2, 2) == bytes(2)
    assert ask(11, 0x1000, 0) == (22, b"")
    assert ask(11, 0x1000, (1 << 20) + 1) == (22, b"")
    assert ask(12, 0x1000, 6, b"short") == (22, b"")
    assert ask(99, 0, 0) == (95, b"")
    machine.function(SLOT).write(4, 2, 3)  # no bus master
    assert ask(11, 0x1000, 5) == (22, b"")
    assert machine.function(SLOT).read(0, 4) == 0x4321_1D0F
