"""Functions of our own over vfio-user: vectors of MSI-X are eventfds, masked ones are pending, and DMA by messages does
not wait for a client that waits for us.
"""

import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm import BarKind, DeviceContext, GuestError, PciFunction, Resources
from acrn_dm.contract.types import Bdf
from acrn_dm.pci.config_space import CAP_EXPRESS
from acrn_dm.pci.msix import pba_offset
from tests.export.vfio_user.vfio_rig import (
    CONFIG,
    EVENTFD,
    IO_FDS,
    MSIX,
    NONE,
    READ,
    REGION_INFO,
    RESET,
    TRIGGER,
    Client,
    count,
    served,
)

VECTORS = 20
PBA = pba_offset(VECTORS)


class Raiser(PciFunction):
    """Raises the vector that is written to its register; reading it moves data, which a client can't serve then."""

    def __init__(self) -> None:
        super().__init__(DeviceContext(bdf=Bdf(slot=0), kind="raiser"), vendor=0x1234, device=1, class_code=0xFF0000)
        self.add_bar(0, 16, BarKind.MEM32, self)
        self.add_msix(1, VECTORS)
        self.refused = ""

    def realize(self, resources: Resources) -> None:
        self.memory = resources.memory

    def read(self, offset: int, size: int) -> int:
        try:
            return self.memory.read(0x1000, size)[0]
        except GuestError as e:
            self.refused = str(e)
            return 0xEE

    def write(self, offset: int, size: int, value: int) -> None:
        assert self.msix is not None
        self.msix.raise_vector(value)


@pytest.fixture
def function() -> Raiser:
    return Raiser()


@pytest.fixture
def client(function: Raiser, tmp_path: Path) -> Iterator[Client]:
    with served(function, tmp_path / "s"):
        it = Client.connect(tmp_path / "s")
        it.greet()
        yield it
        it.close()


def control(client: Client) -> int:
    """Where the capability's control register is."""
    at = client.read(CONFIG, 0x34, 1)
    assert client.read(CONFIG, at, 1) == 0x11
    return at + 2


def test_each_vector_has_its_eventfd(client: Client) -> None:
    fds = {vector: client.eventfd(MSIX, vector) for vector in (0, 3, VECTORS - 1)}
    for vector in (3, VECTORS - 1, 3, VECTORS, 0xFFFF):
        client.write(0, 0, vector)
    assert {vector: count(fd) for vector, fd in fds.items()} == {0: 0, 3: 2, VECTORS - 1: 1}


def test_vector_without_an_eventfd_is_pending_until_it_has_one(client: Client) -> None:
    other = client.eventfd(MSIX, 0)
    client.write(0, 0, 5)
    client.write(0, 0, 5)
    assert client.read(1, PBA, 8) == 1 << 5
    assert count(client.eventfd(MSIX, 5)) == 1
    assert client.read(1, PBA, 8) == 0
    assert count(other) == 0


def test_vector_whose_eventfd_is_taken_is_masked(client: Client) -> None:
    fd = client.eventfd(MSIX, 2)
    assert not client.irqs(MSIX, EVENTFD | TRIGGER, 2, 1)
    client.write(0, 0, 2)
    assert count(fd) == 0
    assert client.read(1, PBA, 8) == 1 << 2


def test_all_are_disabled_at_once(client: Client) -> None:
    fd = client.eventfd(MSIX, 1)
    assert client.read(CONFIG, control(client), 2) & 0x8000
    assert not client.irqs(MSIX, NONE | TRIGGER, 0, 0)
    assert not client.read(CONFIG, control(client), 2) & 0x8000
    client.write(0, 0, 1)
    assert (count(fd), client.read(1, PBA, 8)) == (0, 0)


def test_client_that_switches_the_function_on_by_itself_gets_what_came_before(client: Client) -> None:
    client.write(CONFIG, control(client), 0x8000, 2)
    client.write(0, 0, 7)
    assert count(client.eventfd(MSIX, 7)) == 1


def test_table_is_not_the_client_s(client: Client) -> None:
    fd = client.eventfd(MSIX, 0)
    client.write(1, 8, 3, 4)
    client.write(1, 12, 1, 4)
    client.write(0, 0, 0)
    assert count(fd) == 1


def test_eventfds_outlive_a_reset(client: Client) -> None:
    fd = client.eventfd(MSIX, 4)
    assert not client.ask(RESET).error
    client.write(CONFIG, control(client), 0x8000, 2)
    client.write(0, 0, 4)
    assert count(fd) == 1


def test_register_access_does_not_wait_for_the_client(client: Client, function: Raiser) -> None:
    client.map(0x1000, 4096)
    assert client.read(0, 0, 1) == 0xEE
    assert "within a register access" in function.refused
    assert client.asked == []


class Late(Raiser):
    """Begins to move data when a reset has begun already."""

    thread: threading.Thread | None = None

    def quiesce(self) -> bool:
        if self.thread is None:
            self.thread = threading.Thread(target=self.read, args=(0, 4))
            self.thread.start()
        return not self.thread.is_alive()


def test_transfer_that_begins_within_a_reset_is_given_up(tmp_path: Path) -> None:
    function = Late()
    with served(function, tmp_path / "s"):
        client = Client.connect(tmp_path / "s")
        client.greet()
        client.map(0x1000, 4096)
        ident = client.post(RESET, flags=0)
        command, answers = 0, []
        while command != RESET:
            got, command, flags, error, _ = client.next()
            answers.append((got, command, flags, error))
        assert answers[-1] == (ident, RESET, 1, 0)
        assert "given up" in function.refused
        client.close()


class Express(Raiser):
    """Has the capability that gives it an extended configuration space."""

    def __init__(self) -> None:
        super().__init__()
        self.add_capability(CAP_EXPRESS, bytes(58))


@pytest.mark.parametrize(("function", "size"), [(Raiser(), 256), (Express(), 4096)], ids=["conventional", "express"])
def test_configuration_space_is_as_long_as_the_function_s_kind_has_it(
    client: Client, function: Raiser, size: int
) -> None:
    assert client.ask(REGION_INFO, struct.pack("<4I2Q", 32, 0, CONFIG, 0, 0, 0)).struct("<4I2Q")[4] == size
    whole = client.ask(READ, struct.pack("<QII", 0, CONFIG, size)).payload[16:]
    assert len(whole) == size
    assert whole[:4] == b"\x34\x12\x01\0"
    assert whole[256:] == bytes(size - 256)
    assert client.ask(READ, struct.pack("<QII", size, CONFIG, 4)).error
    if size > 256:
        client.write(CONFIG, 0x100, 0xFFFF_FFFF)
        assert client.read(CONFIG, 0x100) == 0


def test_no_region_has_eventfds_for_what_is_written(client: Client) -> None:
    for index in (0, CONFIG, 8):
        assert client.ask(IO_FDS, struct.pack("<4I", 64, 0, index, 3)).struct("<4I") == (16, 0, index, 0)
    assert client.ask(IO_FDS, struct.pack("<4I", 16, 0, 9, 0)).error
    assert client.ask(IO_FDS, struct.pack("<4I", 15, 0, 0, 0)).error
