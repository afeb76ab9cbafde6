"""Clients that break each rule: none does harm, and the next one is served."""

import contextlib
import json
import mmap
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.export.vfio_user.function import ExportedFunction
from tests.export.vfio_user.vfio_rig import (
    BOOL,
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    EVENTFD,
    HEADER,
    INFO,
    INTX,
    IRQ_INFO,
    MASK,
    MSI,
    MULTI,
    NONE,
    READ,
    REGION_INFO,
    REPLY,
    RESET,
    SET_IRQS,
    TRIGGER,
    UNMASK,
    VERSION,
    WRITE,
    Client,
    rings,
)
from tests.patience import comes_true

PAGE = 4096
EINVAL, EEXIST, ENOTSUP = 22, 17, 95


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def links() -> set[str]:
    """What this process, which is also the server, has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


def version(text: bytes, major: int = 0) -> bytes:
    payload = struct.pack("<HH", major, 0) + text
    return HEADER.pack(1, VERSION, 16 + len(payload), 0, 0) + payload


def capabilities(**said: object) -> bytes:
    return version(json.dumps({"capabilities": said}).encode() + b"\0")


ENDS = {
    "nothing": b"",
    "half a header": bytes(7),
    "size below a header": HEADER.pack(1, VERSION, 15, 0, 0),
    "size of 0": HEADER.pack(1, VERSION, 0, 0, 0),
    "size of 4 GiB": HEADER.pack(1, VERSION, 2**32 - 1, 0, 0),
    "unknown flags": HEADER.pack(1, VERSION, 16, 0x40, 0),
    "unknown type": HEADER.pack(1, VERSION, 16, 2, 0),
    "version without numbers": HEADER.pack(1, VERSION, 16, 0, 0),
    "another version": version(b"", 1),
    "no end": version(b"{}"),
    "no json": version(b"{\0"),
    "deep json": version(b"[" * 100_000 + b"\0"),
    "no utf-8": version(b"\xff\0"),
    "a list": version(b"[]\0"),
    "capabilities of another kind": version(b'{"capabilities":5}\0'),
    "no descriptors": capabilities(max_msg_fds=0),
    "a size that is none": capabilities(max_data_xfer_size="much"),
    "a size that is true": capabilities(max_data_xfer_size=True),
    "a long number": version(b'{"capabilities":{"max_msg_fds":' + b"9" * 5000 + b"}}\0"),
    "reset first": HEADER.pack(1, RESET, 16, 0, 0),
    "version twice": version(b"") * 2,
}


@pytest.mark.parametrize("data", ENDS.values(), ids=ENDS.keys())
def test_client_that_can_not_be_understood_makes_way(exported: ExportedFunction, tmp_path: Path, data: bytes) -> None:
    before = descriptors()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(tmp_path / "s"))
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        try:
            while peer.recv(4096):
                pass
        except ConnectionResetError:
            pass
    second = Client.connect(tmp_path / "s")
    second.greet()
    assert second.read(0, 0) == 0x0100_00ED
    second.close()
    third = Client.connect(tmp_path / "s")  # the second has been forgotten when this one is answered
    third.greet()
    third.close()
    assert comes_true(lambda: descriptors() <= before + 1)


@pytest.mark.parametrize("flags", [1, 3])
def test_client_that_shortens_memory_that_is_touched_is_left_and_the_next_one_served(
    exported: ExportedFunction, client: Client, tmp_path: Path, flags: int
) -> None:
    fd = client.memfd(4 * PAGE)
    assert not client.map(0x10000, 4 * PAGE, fd, flags=flags)
    os.ftruncate(fd, PAGE)
    assert exported.memory.read(0x10000 + PAGE, PAGE) == bytes(PAGE)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next()
    second = Client.connect(tmp_path / "s")
    second.greet()
    assert second.read(0, 0) == 0x0100_00ED
    second.close()


@pytest.mark.parametrize(("greeting", "command"), [(b"", RESET), (b"", INFO), (version(b""), VERSION)])
def test_order_of_commands_is_kept(exported: ExportedFunction, tmp_path: Path, greeting: bytes, command: int) -> None:
    client = Client.connect(tmp_path / "s")
    if greeting:
        client.socket.sendall(greeting)
        client.next()
    client.post(command, bytes(16), flags=0)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next()
    client.close()


def test_half_messages_are_waited_for(exported: ExportedFunction, tmp_path: Path) -> None:
    client = Client.connect(tmp_path / "s")
    for byte in version(b"{}\0"):
        client.socket.sendall(bytes([byte]))
    *_, body = client.next()
    assert body == bytes(4) + b"{}\0"
    client.close()


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 30, 64, 100, 150, 400])
def test_answer_to_version_is_not_longer_than_the_question(
    exported: ExportedFunction, tmp_path: Path, size: int
) -> None:
    client = Client.connect(tmp_path / "s")
    text = b"" if size == 4 else b"{}".ljust(size - 5)[: size - 5] + b"\0"
    answer = client.ask(VERSION, bytes(4) + (b"\0" if size < 7 and text else text)).payload
    assert len(answer) <= size
    assert len(answer) == 4 or answer.endswith(b"\0")
    assert client.read(0, 0) == 0x0100_00ED
    client.close()


REFUSED: dict[str, tuple[int, bytes, int]] = {
    "info without room": (INFO, struct.pack("<4I", 15, 0, 0, 0), EINVAL),
    "short info": (INFO, bytes(15), EINVAL),
    "region info without room": (REGION_INFO, struct.pack("<4I2Q", 31, 0, 0, 0, 0, 0), EINVAL),
    "region 9": (REGION_INFO, struct.pack("<4I2Q", 32, 0, 9, 0, 0, 0), EINVAL),
    "irq 5": (IRQ_INFO, struct.pack("<4I", 16, 0, 5, 0), EINVAL),
    "read of nothing": (READ, struct.pack("<QII", 0, 0, 0), EINVAL),
    "read of too much": (READ, struct.pack("<QII", 0, 0, (1 << 20) + 1), EINVAL),
    "read past a BAR": (READ, struct.pack("<QII", (1 << 20) - 3, 0, 4), EINVAL),
    "read past all": (READ, struct.pack("<QII", 2**64 - 1, 0, 4), EINVAL),
    "read past configuration": (READ, struct.pack("<QII", 253, 7, 4), EINVAL),
    "read of an empty region": (READ, struct.pack("<QII", 0, 1, 4), EINVAL),
    "read of the ROM": (READ, struct.pack("<QII", 0, 6, 4), EINVAL),
    "read of region 2^32-1": (READ, struct.pack("<QII", 0, 2**32 - 1, 4), EINVAL),
    "read with data": (READ, struct.pack("<QIII", 0, 0, 4, 0), EINVAL),
    "write with less": (WRITE, struct.pack("<QIIH", 0, 0, 4, 0), EINVAL),
    "write with more": (WRITE, struct.pack("<QIIQ", 0, 0, 4, 0), EINVAL),
    "multi with less": (MULTI, struct.pack("<QQIIQ", 2, 0, 0, 4, 0), EINVAL),
    "multi of 2^61": (MULTI, struct.pack("<Q", 1 << 61), EINVAL),
    "multi of nine bytes": (MULTI, struct.pack("<QQIIQ", 1, 0, 0, 9, 0), EINVAL),
    "map of nothing": (DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, 0), EINVAL),
    "map past all": (DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 2**64 - 1, 2), EINVAL),
    "map of no access": (DMA_MAP, struct.pack("<IIQQQ", 32, 0, 0, 0, 1), EINVAL),
    "map of unknown access": (DMA_MAP, struct.pack("<IIQQQ", 32, 4, 0, 0, 1), EINVAL),
    "short map": (DMA_MAP, bytes(31), EINVAL),
    "unmap with a bitmap": (DMA_UNMAP, struct.pack("<IIQQ", 24, 1, 0, 1), ENOTSUP),
    "irqs of no data": (SET_IRQS, struct.pack("<5I", 20, TRIGGER, INTX, 0, 1), EINVAL),
    "irqs of two kinds of data": (SET_IRQS, struct.pack("<5I", 20, NONE | BOOL | TRIGGER, INTX, 0, 1), EINVAL),
    "irqs of no action": (SET_IRQS, struct.pack("<5I", 20, NONE, INTX, 0, 1), EINVAL),
    "irqs of two actions": (SET_IRQS, struct.pack("<5I", 20, NONE | MASK | UNMASK, INTX, 0, 1), EINVAL),
    "irqs past the last": (SET_IRQS, struct.pack("<5I", 20, NONE | TRIGGER, MSI, 1, 1), EINVAL),
    "irqs that wrap": (SET_IRQS, struct.pack("<5I", 20, NONE | TRIGGER, MSI, 2**32 - 1, 2), EINVAL),
    "irqs without bools": (SET_IRQS, struct.pack("<5I", 20, BOOL | TRIGGER, MSI, 0, 1), EINVAL),
    "mask of a message": (SET_IRQS, struct.pack("<5I", 20, NONE | MASK, MSI, 0, 1), ENOTSUP),
}


@pytest.mark.parametrize(("command", "payload", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_row_99_command_that_can_not_be_is_refused(client: Client, command: int, payload: bytes, error: int) -> None:
    assert client.ask(command, payload).error == error
    client.post(command, payload)  # nobody waits: no answer
    assert client.read(0, 0) == 0x0100_00ED


@pytest.mark.parametrize(("address", "size"), [(0x1000, 0x3000), (0x2000, 0x1000), (0x1000, 0x1001), (0x2FFF, 5)])
def test_maps_do_not_overlap(client: Client, address: int, size: int) -> None:
    assert not client.map(0x2000, 0x1000)
    assert client.map(address, size) == EEXIST
    assert not client.map(0x3004, PAGE)
    assert not client.unmap(0, 0, 2)
    assert not client.map(address, size)


def test_row_100_unmap_takes_what_is_inside_and_always_succeeds(client: Client) -> None:
    assert not client.unmap(0x5000, PAGE)
    client.map(0x1000, 0x2000)
    assert not client.unmap(0x1000, PAGE)  # a part of one
    assert client.map(0x1000, PAGE) == EEXIST
    assert not client.unmap(0, 2**64 - 1)
    assert not client.map(0x1000, PAGE)


@pytest.mark.parametrize("offset", [1, PAGE, 2**63, 2**64 - PAGE])
def test_map_that_is_longer_than_its_file_is_refused(client: Client, offset: int) -> None:
    assert client.map(0, PAGE, client.memfd(PAGE), offset) == EINVAL
    assert not client.map(0, PAGE)


def test_descriptor_that_can_not_be_mapped_is_refused_and_closed(client: Client) -> None:
    first, second = os.pipe()
    pipe = os.readlink(f"/proc/self/fd/{first}")
    assert pipe in links()
    try:
        assert client.map(0, PAGE, first) == EINVAL
        assert client.ask(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, PAGE), (first, second)).error == EINVAL
        assert client.ask(RESET, b"", (first,) * 16).error == 0
        assert client.irqs(INTX, EVENTFD | TRIGGER, 0, 1, (first,)) == EINVAL
        assert client.irqs(INTX, EVENTFD | TRIGGER, 0, 1, (first, second)) == EINVAL
        assert client.irqs(INTX, NONE | TRIGGER, 0, 1, (first,)) == EINVAL
    finally:
        os.close(first)
        os.close(second)
    client.read(0, 0)  # what came before has been closed
    assert pipe not in links()


def test_too_many_descriptors_end_the_connection(client: Client, tmp_path: Path) -> None:
    first, second = os.pipe()
    pipe = os.readlink(f"/proc/self/fd/{first}")
    client.post(RESET, b"", (first,) * 17)
    os.close(first)
    os.close(second)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next()
    third = Client.connect(tmp_path / "s")
    third.greet()
    assert pipe not in links()
    third.close()


def test_descriptors_that_come_in_parts_are_counted_together(client: Client, tmp_path: Path) -> None:
    first, second = os.pipe()
    pipe = os.readlink(f"/proc/self/fd/{first}")
    data = HEADER.pack(9, RESET, 16, 0, 0)
    for part in (data[:8], data[8:]):
        socket.send_fds(client.socket, [part], [first] * 9)
    os.close(first)
    os.close(second)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next()
    third = Client.connect(tmp_path / "s")
    third.greet()
    assert pipe not in links()
    third.close()


def test_replies_that_nobody_waits_for_do_nothing(client: Client) -> None:
    for command in (DMA_READ, RESET, 77):
        client.post(command, bytes(16), flags=REPLY)
    assert client.read(0, 0) == 0x0100_00ED


@pytest.mark.parametrize(
    "answer",
    [
        lambda body: body,
        lambda body: body + bytes(3),
        lambda body: body + bytes(5),
        lambda body: bytes(20),
        lambda body: b"",
    ],
)
def test_answer_to_dma_that_is_not_what_was_asked_for_moves_nothing(
    client: Client, exported: ExportedFunction, answer: Callable[[bytes], bytes]
) -> None:
    client.map(0x1000, PAGE)
    fd = client.eventfd(MSI)
    for offset, value in ((0x80, 0x1000), (0x88, 0x4_0000), (0x90, 4), (0x98, 5)):
        client.write(0, offset, value, 8, posted=True)
    ident, command, _, _, body = client.next()
    said = answer(body)
    client.socket.sendall(HEADER.pack(ident, command, 16 + len(said), REPLY, 0) + said)
    assert rings(fd)
    assert exported.function.buffer[:4] == bytes(4)  # type: ignore[attr-defined]


def test_client_that_leaves_within_a_transfer_takes_all_along(
    client: Client, exported: ExportedFunction, tmp_path: Path
) -> None:
    fd = client.memfd(PAGE)
    with mmap.mmap(fd, PAGE) as ram:
        client.map(0x1000, PAGE, fd)
        client.map(0x2000, PAGE)
        client.eventfd(INTX)
        for offset, value in ((0x80, 0x2000), (0x88, 0x4_0000), (0x90, 4), (0x98, 1), (4, 7)):
            client.write(0, offset, value, 8 if offset >= 0x80 else 4, posted=True)
        client.next()
        client.close()
        second = Client.connect(tmp_path / "s")
        second.greet()
        assert second.read(0, 4) == second.read(0, 0x98) == 0
        line = second.eventfd(INTX)
        for offset, value in ((0x80, 0x4_0000), (0x88, 0x1000), (0x90, 4), (0x98, 7)):
            second.write(0, offset, value, 8, posted=True)
        assert rings(line)
        assert ram[:] == bytes(PAGE)
        second.close()
