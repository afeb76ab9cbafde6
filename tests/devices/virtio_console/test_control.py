"""The control queues of a console. Test names hold ids of the conformance table or bug rows."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_console.control import MAX_WAITING
from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_console.console_rig import (
    CONSOLE_PORT,
    DEVICE_ADD,
    DEVICE_READY,
    DEVICE_REMOVE,
    FROM_GUEST,
    PORT_NAME,
    PORT_OPEN,
    PORT_READY,
    RESIZE,
    Console,
    console,
)

pytestmark = pytest.mark.both_formats


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Console]:
    """A console on a file and a port on a socket server, with MULTIPORT."""
    with console(f"@file:con={tmp_path}/log,socket:chan={tmp_path}/sock") as c:
        yield c


def test_ports_are_announced_named_and_opened(two: Console) -> None:
    messages = two.bring_up()
    assert [m for m in messages if m[1] == DEVICE_ADD] == [(0, DEVICE_ADD, 0, b""), (1, DEVICE_ADD, 0, b"")]
    assert [m for m in messages if m[0] == 0] == [
        (0, DEVICE_ADD, 0, b""),
        (0, CONSOLE_PORT, 1, b""),
        (0, PORT_NAME, 1, b"con"),
        (0, PORT_OPEN, 1, b""),
    ]
    assert [m for m in messages if m[0] == 1] == [(1, DEVICE_ADD, 0, b""), (1, PORT_NAME, 1, b"chan")]


def test_messages_wait_for_buffers_and_none_is_lost(two: Console) -> None:
    two.control(DEVICE_READY)
    two.control(PORT_READY, 0)
    assert two.messages() == []
    two.post_control(3)
    assert [m[:2] for m in two.messages()] == [(0, DEVICE_ADD), (1, DEVICE_ADD), (0, CONSOLE_PORT)]
    two.post_control(8)
    assert [m[:2] for m in two.messages()] == [(0, PORT_NAME), (0, PORT_OPEN)]


def test_console_add_existing_ports_are_added_once(two: Console) -> None:
    two.post_control()
    two.control(DEVICE_READY)
    two.control(DEVICE_READY)
    assert [m[:2] for m in two.messages()] == [(0, DEVICE_ADD), (1, DEVICE_ADD)]


def test_ports_are_added_again_for_the_next_driver(two: Console) -> None:
    two.bring_up()
    two.driver.start(queues=range(6))
    assert [m[:2] for m in two.bring_up() if m[1] == DEVICE_ADD] == [(0, DEVICE_ADD), (1, DEVICE_ADD)]


@pytest.mark.parametrize("port", [2, 15, 16, 0x7FFF_FFFF, 0xFFFF_FFFF])
@pytest.mark.parametrize("event", [PORT_READY, PORT_OPEN, DEVICE_ADD, DEVICE_REMOVE, RESIZE, PORT_NAME, 8, 0xFFFF])
def test_row_80_control_message_for_no_port_is_ignored(two: Console, event: int, port: int) -> None:
    two.post_control()
    two.control(event, port)
    assert two.messages() == []
    assert two.machine.failures == []


@pytest.mark.parametrize("length", range(8))
def test_row_80_short_control_message_is_ignored(two: Console, length: int) -> None:
    done = two.driver.queue(FROM_GUEST).transfer([bytes(length)] if length else [], [] if length else [8])
    assert done.written == 0
    assert two.machine.failures == []


@pytest.mark.parametrize("length", [9, 4096, 100_000])
def test_row_81_long_control_message_counts_by_its_first_bytes(two: Console, length: int) -> None:
    two.post_control()
    two.driver.queue(FROM_GUEST).transfer([struct.pack("<IHH", 0, DEVICE_READY, 1).ljust(length, b"\xff")])
    assert len(two.messages()) == 2


def test_control_message_in_pieces_is_read(two: Console) -> None:
    two.post_control()
    two.driver.queue(FROM_GUEST).transfer([bytes([b]) for b in struct.pack("<IHH", 0, DEVICE_READY, 1)])
    assert len(two.messages()) == 2


def test_buffer_too_small_for_a_message_asks_for_a_reset(two: Console) -> None:
    two.post_control(4, size=8)
    two.control(DEVICE_READY)
    two.driver.queue(FROM_GUEST).send([struct.pack("<IHH", 0, PORT_READY, 1)])
    two.driver.queue(FROM_GUEST).kick()
    two.machine.settle()
    assert two.driver.status & NEEDS_RESET


def test_driver_that_asks_and_never_listens_is_held_back(two: Console) -> None:
    for _ in range(3 * MAX_WAITING):
        queue = two.driver.queue(FROM_GUEST)
        if queue.ring.free_descriptors:
            queue.send([struct.pack("<IHH", 0, PORT_READY, 1)])
            queue.kick()
            two.machine.settle()
            queue.completed()
    assert two.device.control is not None
    assert len(two.device.control._waiting) <= MAX_WAITING + 4
    assert two.driver.queue(FROM_GUEST).in_flight > 0
    while two.driver.queue(FROM_GUEST).in_flight:
        two.post_control(32)
        assert two.messages(), "it goes on once the driver listens"
        two.driver.queue(FROM_GUEST).completed()


def test_resize_goes_to_console_ports_as_columns_and_rows(two: Console) -> None:
    two.bring_up()
    two.device.resize(0, 100, 30)
    two.device.resize(1, 100, 30)
    two.machine.settle()
    assert two.messages() == [(0, RESIZE, 0, struct.pack("<HH", 100, 30))]
