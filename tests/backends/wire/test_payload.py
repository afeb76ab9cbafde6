"""What one end of vhost-user writes the other reads; what is no such payload is refused."""

from collections.abc import Callable

import pytest

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import Message, PeerError, Request

REGIONS = [(0, 1 << 20, 1 << 46, 0), (1 << 32, 1 << 30, 1 << 47, 4096)]


def message(code: int, content: bytes) -> Message:
    return Message(code=code, flags=1, payload=content)


def test_memory_table_comes_back() -> None:
    written = payload.memory_table([payload.region(*region) for region in REGIONS])
    assert payload.parse_memory_table(message(Request.SET_MEM_TABLE, written)) == REGIONS


def test_single_region_comes_back() -> None:
    written = payload.single_region(payload.region(*REGIONS[1]))
    assert payload.parse_single_region(message(Request.ADD_MEM_REG, written)) == REGIONS[1]


def test_ring_addresses_come_back() -> None:
    written = payload.vring_addr(3, desc=0x1000, avail=0x2000, used=0x3000)
    assert payload.parse_vring_addr(message(Request.SET_VRING_ADDR, written)) == (3, 0x1000, 0x2000, 0x3000)


@pytest.mark.parametrize("index", [0, payload.MAX_QUEUES - 1])
def test_ring_with_a_descriptor_comes_back(index: int) -> None:
    assert payload.parse_vring_fd(message(Request.SET_VRING_KICK, payload.vring_fd(index))) == (index, True)


def test_bit_8_says_that_there_is_no_descriptor() -> None:
    written = payload.vring_fd(7 | payload.NO_FD)
    assert payload.parse_vring_fd(message(Request.SET_VRING_CALL, written)) == (7, False)


@pytest.mark.parametrize("data", [b"", b"\x01", bytes(range(256))], ids=len)
def test_configuration_comes_back(data: bytes) -> None:
    assert payload.parse_config(message(Request.SET_CONFIG, payload.config(5, data))) == (5, data)


def test_inflight_description_comes_back_with_and_without_padding() -> None:
    written = payload.inflight(4096, 64, 2, 128)
    assert payload.parse_inflight(written) == payload.parse_inflight(written[:-4]) == (4096, 64, 2, 128)


TABLE = payload.memory_table([payload.region(*region) for region in REGIONS])


@pytest.mark.parametrize(
    ("parse", "content", "words"),
    [
        (payload.parse_memory_table, TABLE[:-1], "SET_MEM_TABLE of 71 bytes"),
        (payload.parse_memory_table, TABLE[:4], "SET_MEM_TABLE of 4 bytes"),
        (payload.parse_memory_table, payload.memory_table([payload.region(*REGIONS[0])] * 9), "of 296 bytes"),
        (payload.parse_vring_fd, payload.vring_fd(1 << 9), "of ring 0x200"),
        (payload.parse_config, payload.config(0, b"abc")[:-1], "of 3 bytes in 14"),
        (payload.parse_config, payload.config(0, bytes(257)), "of 257 bytes in 269"),
        (payload.parse_config, bytes(11), "of 11 bytes"),
    ],
)
def test_what_is_no_such_payload_is_refused(parse: Callable[[Message], object], content: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        parse(message(Request.SET_MEM_TABLE, content))


@pytest.mark.parametrize("size", [0, 19, 21, 25])
def test_inflight_description_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(PeerError, match=f"an inflight description of {size} bytes"):
        payload.parse_inflight(bytes(size))
