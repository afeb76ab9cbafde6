"""The parsers of a client's commands: whatever bytes come, they are understood or refused."""

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.message import Command, Message, Refused
from acrn_dm.export.vfio_user import parsing

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
PARSERS: list[tuple[Command, Callable[[Message], object]]] = [
    (Command.DMA_MAP, parsing.parse_map),
    (Command.DMA_UNMAP, parsing.parse_unmap),
    (Command.DEVICE_GET_REGION_INFO, lambda m: parsing.parse_info(m, wire.REGION_INFO)),
    (Command.DEVICE_GET_IRQ_INFO, lambda m: parsing.parse_info(m, wire.IRQ_INFO)),
    (Command.DEVICE_SET_IRQS, parsing.parse_irqs),
    (Command.REGION_READ, parsing.parse_read),
    (Command.REGION_WRITE, parsing.parse_write),
    (Command.REGION_WRITE_MULTI, parsing.parse_multi),
]


def message(command: int, payload: bytes) -> Message:
    return Message(id=1, command=command, flags=0, error=0, payload=payload, fds=[])


@pytest.mark.parametrize(("command", "parse"), PARSERS, ids=lambda it: getattr(it, "name", ""))
@given(payload=st.binary(max_size=80))
def test_any_bytes_are_understood_or_refused(
    command: Command, parse: Callable[[Message], object], payload: bytes
) -> None:
    with contextlib.suppress(PeerError):
        parse(message(command, payload))


@given(U32, U32, U64, U64, U64)
def test_map_is_taken_only_where_there_are_addresses(argsz: int, flags: int, offset: int, at: int, size: int) -> None:
    payload = struct.pack("<IIQQQ", argsz, flags, offset, at, size)
    try:
        got = parsing.parse_map(message(Command.DMA_MAP, payload))
    except Refused:
        assert flags not in (1, 2, 3) or not size or at + size > 2**64 or offset + size > 2**64
    else:
        assert (got.flags, got.offset, got.address, got.size) == (flags, offset, at, size)
        assert got.flags in (1, 2, 3)
        assert got.size > 0
        assert got.address + got.size <= 2**64


@given(U64, U32, st.binary(max_size=40), st.integers(0, 50))
def test_write_has_the_bytes_that_it_says(offset: int, region: int, data: bytes, said: int) -> None:
    payload = struct.pack("<QII", offset, region, said) + data
    try:
        access, got = parsing.parse_write(message(Command.REGION_WRITE, payload))
    except Refused:
        assert said != len(data) or not said or offset + said > 2**64
    else:
        assert got == data
        assert (access.region, access.offset, access.count) == (region, offset, len(data))


@given(st.lists(st.tuples(U64, U32, st.integers(1, 8), st.binary(min_size=8, max_size=8)), max_size=200))
def test_writes_of_one_message_keep_their_order(writes: list[tuple[int, int, int, bytes]]) -> None:
    payload = struct.pack("<Q", len(writes)) + b"".join(struct.pack("<QII8s", *write) for write in writes)
    try:
        got = parsing.parse_multi(message(Command.REGION_WRITE_MULTI, payload))
    except Refused:
        assert any(offset + n > 2**64 for offset, _, n, _ in writes)
    else:
        assert [(a.offset, a.region, a.count, d) for a, d in got] == [(o, r, n, d[:n]) for o, r, n, d in writes]
