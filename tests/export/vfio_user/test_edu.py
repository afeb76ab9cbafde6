"""``edu`` in the hands of a client: registers, interrupts, DMA by files and by messages."""

import mmap
import struct

import pytest

from acrn_dm.export.vfio_user.function import ExportedFunction
from tests.export.vfio_user.vfio_rig import (
    CONFIG,
    DMA_READ,
    DMA_WRITE,
    INFO,
    INTX,
    IRQ_INFO,
    MASK,
    MSI,
    MSIX,
    MULTI,
    NONE,
    READ,
    REGION_INFO,
    RESET,
    TRIGGER,
    UNMASK,
    Client,
    count,
    rings,
)
from tests.patience import comes_true

FACTORIAL, STATUS, PENDING, RAISE, ACKNOWLEDGE = 0x08, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND, BUFFER = 0x80, 0x88, 0x90, 0x98, 0x4_0000
PAGE = 4096


def transfer(client: Client, source: int, destination: int, length: int, command: int) -> None:
    for offset, value in ((SOURCE, source), (DESTINATION, destination), (COUNT, length), (COMMAND, command)):
        client.write(0, offset, value, 8, posted=True)
    assert comes_true(lambda: not client.read(0, COMMAND) & 1)


def test_device_tells_what_it_is(client: Client) -> None:
    assert client.ask(INFO, struct.pack("<4I", 16, 0, 0, 0)).struct("<4I") == (16, 3, 9, 5)
    sizes = []
    for index in range(9):
        answer = client.ask(REGION_INFO, struct.pack("<4I2Q", 32, 0, index, 0, 0, 0)).struct("<4I2Q")
        assert answer[:4] == (32, 3 if answer[4] else 0, index, 0)
        sizes.append(answer[4])
    assert sizes == [1 << 20, 0, 0, 0, 0, 0, 0, 256, 0]
    irqs = [client.ask(IRQ_INFO, struct.pack("<4I", 16, 0, i, 0)).struct("<4I")[1:] for i in range(5)]
    assert irqs == [(7, 0, 1), (1, 1, 1), (1, 2, 0), (1, 3, 0), (1, 4, 0)]


def test_configuration_space_is_read_at_once_and_in_parts(client: Client) -> None:
    whole = client.ask(READ, struct.pack("<QII", 0, CONFIG, 256)).payload[16:]
    assert whole[:4] == bytes.fromhex("3412e811")
    assert whole[0x3D] == 1
    assert client.read(CONFIG, 1, 7) == int.from_bytes(whole[1:8], "little")
    client.write(CONFIG, 0x30, 0xFFFF_F800)
    assert client.read(CONFIG, 0x30) == 0  # no ROM


def test_registers_are_read_and_written(client: Client) -> None:
    assert client.read(0, 0) == 0x0100_00ED
    client.write(0, 4, 0x1234_5678)
    client.write(0, 4, 5, posted=True)
    assert client.read(0, 4) == 0xFFFF_FFFA
    client.write(0, FACTORIAL, 10, posted=True)
    assert comes_true(lambda: not client.read(0, STATUS) & 1)
    assert client.read(0, FACTORIAL) == 3_628_800


def test_writes_come_in_one_message_and_keep_their_order(client: Client) -> None:
    values = range(200)
    writes = b"".join(struct.pack("<QIIQ", 4, 0, 4, value) for value in values)
    client.post(MULTI, struct.pack("<Q", len(values)) + writes)
    assert client.read(0, 4) == ~199 & 0xFFFF_FFFF


def test_memory_that_does_not_decode_reads_as_ones(client: Client) -> None:
    client.write(CONFIG, 4, 0, 2)
    assert client.read(0, 0) == 0xFFFF_FFFF
    client.write(CONFIG, 4, 7, 2)
    assert client.read(0, 0) == 0x0100_00ED


@pytest.mark.parametrize("offset", [0, PAGE, 100])
def test_dma_by_a_file(client: Client, offset: int) -> None:
    fd = client.memfd(4 * PAGE)
    with mmap.mmap(fd, 4 * PAGE) as ram:
        ram[offset + 16 : offset + 116] = bytes(range(100))
        assert not client.map(0x10_0000, 2 * PAGE, fd, offset)
        transfer(client, 0x10_0010, BUFFER, 100, 1)
        transfer(client, BUFFER + 10, 0x10_0400, 90, 3)
        assert ram[offset + 0x400 : offset + 0x45B] == bytes(range(10, 100)) + b"\0"
    assert client.asked == []


def test_dma_by_messages(client: Client) -> None:
    client.ram[0xFFFC_0000] = bytearray(bytes(range(256)) * 16)
    assert not client.map(0xFFFC_0000, PAGE)
    transfer(client, 0xFFFC_0010, BUFFER, 100, 1)
    transfer(client, BUFFER, 0xFFFC_0800, 100, 3)
    assert client.ram[0xFFFC_0000][0x800:0x865] == bytes(range(16, 116)) + b"\x64"
    assert client.asked == [DMA_READ, DMA_WRITE]


def test_messages_are_as_long_as_the_client_says(client: Client, exported: ExportedFunction) -> None:
    exported.memory.messages.most = 30  # type: ignore[union-attr]
    client.ram[0x1000] = bytearray(bytes(range(100)))
    client.map(0x1000, 100)
    transfer(client, 0x1000, BUFFER, 100, 1)
    assert client.asked == [DMA_READ] * 4
    assert exported.function.buffer[:100] == bytes(range(100))  # type: ignore[attr-defined]


def test_buffer_may_cross_two_maps(client: Client) -> None:
    fd = client.memfd(PAGE)
    with mmap.mmap(fd, PAGE) as ram:
        ram[-4:] = b"from"
        client.ram[0x2000] = bytearray(b"both" + bytes(PAGE - 4))
        client.map(0x1000, PAGE, fd)
        client.map(0x2000, PAGE)
        transfer(client, 0x1FFC, BUFFER, 8, 1)
        transfer(client, BUFFER + 4, 0x1FFE, 4, 3)
        assert ram[-4:] + client.ram[0x2000][:4] == b"frbothth"


def test_what_is_unmapped_is_not_touched(client: Client) -> None:
    fd = client.memfd(3 * PAGE)
    with mmap.mmap(fd, 3 * PAGE) as ram:
        for page in range(3):
            assert not client.map(0x1000 + page * PAGE, PAGE, fd, page * PAGE)
        assert not client.unmap(0x1000, 2 * PAGE)
        transfer(client, BUFFER, 0x1000, 4, 3)
        transfer(client, BUFFER, 0x2FFE, 4, 3)
        assert ram[:] == bytes(3 * PAGE)
        ram[:4] = b"back"
        assert not client.map(0x1000, PAGE, fd)
        transfer(client, 0x1000, BUFFER, 4, 1)
        transfer(client, BUFFER, 0x3000, 4, 3)
        assert ram[2 * PAGE : 2 * PAGE + 4] == b"back"


def test_memory_that_is_read_only_is_not_written(client: Client) -> None:
    fd = client.memfd(PAGE)
    with mmap.mmap(fd, PAGE) as ram:
        ram[:4] = b"shad"
        assert not client.map(0xC_0000, PAGE, fd, flags=1)
        transfer(client, 0xC_0000, BUFFER, 4, 1)
        transfer(client, BUFFER, 0xC_0100, 4, 3)
        assert ram[0x100:0x104] == bytes(4)


def test_line_is_told_of_once_until_the_client_unmasks_it(client: Client) -> None:
    fd = client.eventfd(INTX)
    client.write(0, RAISE, 1)
    assert rings(fd)
    client.write(0, RAISE, 2)
    assert count(fd) == 0
    assert client.read(CONFIG, 6, 2) & 8  # interrupt status
    assert not client.irqs(INTX, NONE | UNMASK)
    assert count(fd) == 1  # still asserted
    client.write(0, ACKNOWLEDGE, 3)
    assert not client.irqs(INTX, NONE | UNMASK)
    assert count(fd) == 0
    assert not client.irqs(INTX, NONE | MASK)
    client.write(0, RAISE, 1)
    assert count(fd) == 0
    assert not client.irqs(INTX, NONE | UNMASK)
    assert count(fd) == 1


def test_line_that_waits_is_told_of_with_the_eventfd(client: Client) -> None:
    client.write(0, RAISE, 1)
    assert count(client.eventfd(INTX)) == 1


def test_message_of_msi_is_its_eventfd(client: Client) -> None:
    line, message = client.eventfd(INTX), client.eventfd(MSI)
    client.write(0, RAISE, 1)
    client.write(0, RAISE, 1)
    assert (count(line), count(message)) == (0, 2)
    assert not client.irqs(MSI, NONE | TRIGGER, 0, 0)
    client.write(0, ACKNOWLEDGE, 1)
    client.write(0, RAISE, 1)
    assert (count(line), count(message)) == (1, 0)


def test_message_that_comes_before_its_eventfd_is_kept(client: Client) -> None:
    at = client.read(CONFIG, 0x34, 1)
    client.write(CONFIG, at + 2, 1, 2)  # clients switch it on first
    client.write(0, RAISE, 1)
    assert count(client.eventfd(MSI)) == 1
    assert count(client.eventfd(MSI)) == 0


def test_client_tries_its_eventfd(client: Client) -> None:
    message = client.eventfd(MSI)
    assert not client.irqs(MSI, NONE | TRIGGER)
    assert count(message) == 1


def test_dma_interrupts_when_it_is_done(client: Client) -> None:
    message = client.eventfd(MSI)
    client.ram[0] = bytearray(16)
    client.map(0, 16)
    transfer(client, 0, BUFFER, 16, 5)
    assert rings(message)
    assert client.read(0, PENDING) == 0x100


def test_reset_keeps_eventfds_and_forgets_registers(client: Client) -> None:
    line = client.eventfd(INTX)
    client.write(0, 4, 1)
    client.write(CONFIG, 0x3C, 5, 1)
    assert not client.ask(RESET).error
    assert client.read(0, 4) == 0
    assert not client.irqs(INTX, NONE | UNMASK)
    client.write(0, RAISE, 1)
    assert rings(line)


def test_reset_gives_a_transfer_up_that_waits_for_the_client(client: Client) -> None:
    client.map(0x1000, PAGE)
    for offset, value in ((SOURCE, 0x1000), (DESTINATION, BUFFER), (COUNT, 4), (COMMAND, 1)):
        client.write(0, offset, value, 8, posted=True)
    ident, command, *_ = client.next()
    assert command == DMA_READ
    client.ram[0x1000] = bytearray(PAGE)
    assert not client.ask(RESET).error
    client.serve(ident, command, struct.pack("<QQ", 0x1000, 4))  # late
    transfer(client, 0x1000, BUFFER, 4, 1)


def test_registers_answer_while_a_transfer_waits_for_the_client(client: Client) -> None:
    client.map(0x1000, PAGE)
    for offset, value in ((SOURCE, 0x1000), (DESTINATION, BUFFER), (COUNT, 4), (COMMAND, 1)):
        client.write(0, offset, value, 8, posted=True)
    ident, command, _, _, body = client.next()
    assert client.read(0, COMMAND) == 1
    client.ram[0x1000] = bytearray(b"data")
    client.serve(ident, command, body)
    assert comes_true(lambda: not client.read(0, COMMAND) & 1)


def test_what_is_not_served_is_refused(client: Client) -> None:
    assert client.ask(14, bytes(16)).error == 95  # ENOTSUP
    assert client.ask(99).error == 95
    assert client.irqs(MSIX, NONE | TRIGGER) == 22
