"""Eventfds of many vectors: as many in a message as the server takes, and late ones for those that few drivers use."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.testing import GuestFunction, SimMachine
from tests.backends.user.user_rig import eventually
from tests.devices.vfio_user.fake_server import SET_IRQS, FakeServer, config_space, msix

SLOT = 6
MSIX, GIVE, TAKE = 2, 36, 33
VECTORS, AT_ONCE = 70, 64

Make = Callable[[dict[str, object]], tuple[SimMachine, FakeServer, GuestFunction]]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    server = FakeServer(tmp_path / "s", config=config_space(c40=msix(vectors=VECTORS)), irqs=(1, 0, VECTORS, 0, 0))
    with server, SimMachine() as machine:

        def make(capabilities: dict[str, object]) -> tuple[SimMachine, FakeServer, GuestFunction]:
            server.capabilities = capabilities
            machine.add("vfio-user", f"socket={server.path}", slot=SLOT)
            return machine, server, machine.function(SLOT)

        yield make


def told(server: FakeServer) -> list[tuple[int, ...]]:
    """Flags, first vector and number of vectors of each SET_IRQS for MSI-X since the last look."""
    found = [struct.unpack("<IIIII", payload) for payload in server.payloads(SET_IRQS)]
    with server.changed:
        server.seen.clear()
    return [(flags, start, count) for _, flags, index, start, count in found if index == MSIX]


@pytest.mark.parametrize(
    ("capabilities", "most"), [({"max_msg_fds": 5}, 5), ({"max_msg_fds": 100}, 16), ({}, 1)], ids=["5", "100", "unsaid"]
)
def test_message_brings_as_many_as_the_server_takes(capabilities: dict[str, object], most: int, made: Make) -> None:
    _, server, function = made(capabilities)
    function.mask_function()
    given = told(server)
    assert given == [(GIVE, at, min(most, AT_ONCE - at)) for at in range(0, AT_ONCE, most)]


def test_interrupt_of_a_vector_that_was_masked_from_the_beginning_is_pending(made: Make) -> None:
    machine, server, function = made({"max_msg_fds": 16})
    function.write_vector(9, 0x77, masked=True)
    function.mask_function(False)
    server.interrupt(MSIX, 9)
    eventually(machine, lambda: function.pending(9))
    assert not machine.interrupts
    function.mask(9, False)
    eventually(machine, lambda: machine.interrupts[0x77] == 1)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_vector_beyond_the_first_has_one_when_it_is_unmasked(before: bool, made: Make) -> None:
    machine, server, function = made({"max_msg_fds": 16})
    if before:
        function.write_vector(66, 0x66)
    function.mask_function(False)
    if not before:
        function.write_vector(66, 0x66)
    function.mask(66)
    function.mask(66, False)
    first = [(GIVE, at, 16) for at in range(0, AT_ONCE, 16)]
    assert told(server) == [*first, (GIVE, 66, 1)]
    server.interrupt(MSIX, 66)
    eventually(machine, lambda: machine.interrupts[0x66] == 1)
    function.enable_msix(False)
    assert told(server) == [(TAKE, 0, 0)]
