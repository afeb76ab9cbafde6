"""virtio-console as its driver sees it. Test names hold ids of the conformance table or bug rows."""

import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_console.console_rig import (
    DEVICE_READY,
    FROM_GUEST,
    PORT_OPEN,
    SIZE,
    TO_GUEST,
    Console,
    console,
    tx_queue,
)
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.both_formats


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Console]:
    """A console on a file and a port on a socket server, with MULTIPORT."""
    with console(f"@file:con={tmp_path}/log,socket:chan={tmp_path}/sock") as c:
        yield c


def connect(tmp_path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(tmp_path / "sock"))
    client.setblocking(False)
    return client


# Without MULTIPORT


def test_driver_without_multiport_writes_to_port_0(plain: Console, log: Path) -> None:
    plain.send(0, b"hello ", b"world")
    assert (plain.sent(0), log.read_bytes()) == (1, b"hello world")


def test_legacy_driver_writes_to_port_0(log: Path) -> None:
    with console(f"file:con={log}", legacy=True, features=0) as c:
        c.send(0, b"legacy")
    assert log.read_bytes() == b"legacy"


def test_used_length_of_output_is_zero_even_with_writable_buffers(plain: Console) -> None:
    done = plain.driver.queue(1).transfer([b"x"], [8])
    assert (done.written, done.data) == (0, b"\xa5" * 8)


def test_file_is_appended_to(log: Path) -> None:
    for text in (b"one", b"two"):
        with console(f"file:con={log}", features=0) as c:
            c.send(0, text)
    assert log.read_bytes() == b"onetwo"


def test_other_ports_are_dead_without_multiport(log: Path) -> None:
    with console(f"@file:con={log},pty:other", features=SIZE) as c:
        c.driver.queue(tx_queue(1)).send([b"x"])
        c.driver.queue(tx_queue(1)).kick(force=True)
        c.driver.queue(FROM_GUEST).send([struct.pack("<IHH", 0, DEVICE_READY, 1)])
        c.driver.queue(FROM_GUEST).kick(force=True)
        c.machine.settle()
        assert c.driver.queue(tx_queue(1)).completed() == []
        assert c.machine.failures == []


# Ports


def test_host_input_waits_until_the_guest_opened_the_port(two: Console, tmp_path: Path) -> None:
    two.bring_up()
    client = connect(tmp_path)
    client.send(b"early")
    two.post(1, 64)
    assert two.received(1) == b""
    two.control(PORT_OPEN, 1)
    assert two.received(1) == b"early"
    client.close()


def test_host_input_waits_for_buffers_and_none_is_lost(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    data = bytes(i % 251 for i in range(5000))
    client.send(data)
    assert two.received(1) == b""
    assert sum(loop.step() for loop in two.machine.io_loops.values()) == 0, "what waits keeps no loop busy"
    got = b""
    while len(got) < len(data):
        two.post(1, 100, 200, 1)
        more = two.received(1)
        assert more
        got += more
    assert got == data
    client.close()


def test_input_fills_buffers_of_several_descriptors(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.driver.queue(4).send([], [1, 2, 3])
    two.driver.queue(4).kick()
    client.send(b"abcdef")
    assert two.received(1) == b"abcdef"
    client.close()


def test_receive_buffer_without_room_comes_back_empty(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.driver.queue(4).send([b"readable"], [])
    two.post(1, 16)
    client.send(b"x")
    assert two.received(1) == b"x"
    assert two.machine.failures == []
    client.close()


def test_output_waits_while_the_host_is_slow_and_none_is_lost(tmp_path: Path) -> None:
    with console(f"socket:chan={tmp_path}/sock:wait", memory=32 << 20, features=0) as c:
        client = connect(tmp_path)
        c.machine.settle()
        data = bytes(i % 253 for i in range(60_000))
        for i in range(20):
            c.send(0, data[: 30_000 + i], data[30_000 + i :])
        assert c.sent(0) < 20
        assert c.machine.io_loops["io"].step() == 0, "what waits keeps no loop busy"
        got = b""
        while len(got) < 20 * len(data):
            try:
                got += client.recv(1 << 20)
            except BlockingIOError:
                c.machine.settle()
        assert got == data * 20
        c.machine.settle()
        assert c.device.ports[0].discarded == 0
        client.close()


def test_row_83_slow_port_does_not_hold_up_another(two: Console, tmp_path: Path) -> None:
    two.bring_up(0, 1)
    client = connect(tmp_path)
    two.machine.settle()
    for _ in range(20):
        two.send(1, bytes(60_000))
    two.send(0, b"quick")
    assert (tmp_path / "log").read_bytes() == b"quick"
    client.close()


def test_output_to_nobody_is_thrown_away_and_counted(two: Console) -> None:
    two.bring_up(1)
    two.send(1, b"12345")
    assert two.sent(1) == 1
    assert two.device.ports[1].discarded == 5


def test_output_to_nobody_is_told_when_the_driver_leaves(two: Console, caplog: pytest.LogCaptureFixture) -> None:
    two.bring_up(1)
    two.send(1, b"12345")
    with caplog.at_level(logging.DEBUG, "acrn_dm.devices.virtio_console.port"):
        two.driver.reset()
    assert caplog.messages == ["port 1: 5 bytes of the guest went to nobody so far"]


def test_client_comes_goes_and_comes_again(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    for text in (b"first", b"second"):
        client = connect(tmp_path)
        two.machine.settle()
        assert two.messages() == [(1, PORT_OPEN, 1, b"")]
        two.send(1, text)
        assert client.recv(100) == text
        two.post(1, 64)
        client.send(text)
        assert two.received(1) == text
        client.close()
        two.post(1, 64)
        assert two.messages() == [(1, PORT_OPEN, 0, b"")]


def test_second_client_waits_for_the_first_to_leave(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    first = connect(tmp_path)
    two.machine.settle()
    second = connect(tmp_path)
    second.send(b"me too")
    two.post(1, 64, 64)
    assert two.received(1) == b""
    first.close()
    assert two.received(1) == b"me too"
    second.close()


def test_client_that_leaves_while_output_waits_is_noticed(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    for _ in range(20):
        two.send(1, bytes(60_000))
    assert two.sent(1) < 20
    client.close()
    two.machine.settle()
    assert two.driver.queue(tx_queue(1)).completed() != []
    assert two.driver.queue(tx_queue(1)).in_flight == 0
    assert two.messages()[-1] == (1, PORT_OPEN, 0, b"")


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_ring_that_breaks_while_input_arrives_is_reported_once(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    two.post(1, 16)
    client = connect(tmp_path)
    two.machine.settle()
    two.driver.queue(4).ring.set_avail_idx(5000)
    client.send(bytes(100))
    two.machine.settle()
    assert two.driver.status & NEEDS_RESET
    assert len(two.machine.failures) == 1
    client.close()


def test_reset_keeps_the_host_side_and_its_waiting_input(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    two.driver.reset()
    client.send(b"patient")
    two.machine.settle()
    two.driver.start(queues=range(6))
    assert (1, PORT_OPEN, 1, b"") in two.bring_up(1)
    two.post(1, 64)
    assert two.received(1) == b"patient"
    client.close()


def test_reset_while_output_waits_is_clean(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    for _ in range(20):
        two.send(1, bytes(60_000))
    two.driver.reset()
    two.driver.start(queues=range(6))
    two.bring_up(0)
    two.send(0, b"again")
    assert (tmp_path / "log").read_bytes() == b"again"
    client.close()


def rest(c: Console) -> None:
    """Stop and go on, with the driver unaware."""
    function = c.machine.bus.functions[0]
    pause(function)
    c.machine.settle()
    resume(function)
    c.machine.settle()


def test_pause_keeps_open_ports_open_and_says_nothing_again(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    assert two.messages() == [(1, PORT_OPEN, 1, b"")]
    rest(two)
    assert two.messages() == []
    two.post(1, 64)
    client.send(b"input")
    assert two.received(1) == b"input"
    two.control(DEVICE_READY)
    assert two.messages() == [], "the ports are there already"
    client.close()


def test_host_that_comes_during_a_pause_is_announced_afterwards(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    function = two.machine.bus.functions[0]
    pause(function)
    client = connect(tmp_path)
    two.machine.settle()
    assert two.messages() == []
    resume(function)
    two.machine.settle()
    assert two.messages() == [(1, PORT_OPEN, 1, b"")]
    client.close()


def fill(c: Console, port: int) -> bytes:
    """Send more than the host takes now, no two bytes near each other alike; all of it."""
    chains = [bytes((7 * i + at % 251) % 256 for at in range(60_000)) for i in range(20)]
    for chain in chains:
        c.send(port, chain)
    assert c.device.ports[port]._written > 0, "one is half written"
    return b"".join(chains)


def test_pause_in_the_middle_of_a_chain_repeats_and_loses_nothing(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    data, got = fill(two, 1), b""
    while len(got) < len(data):
        rest(two)
        more = client.recv(1 << 20)
        assert more
        got += more
        two.machine.settle()
    assert got == data
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.close()


def test_reset_in_the_middle_of_a_chain_costs_the_next_driver_nothing(two: Console, tmp_path: Path) -> None:
    two.bring_up(1)
    client = connect(tmp_path)
    two.machine.settle()
    data = fill(two, 1)
    two.driver.start(queues=range(6))
    two.bring_up(1)
    two.send(1, b"whole")
    got = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            got += client.recv(1 << 20)
            two.machine.settle()
    assert got.endswith(b"whole")
    assert data.startswith(got.removesuffix(b"whole"))
    client.close()


def test_guest_that_floods_a_port_leaves_the_loop_to_others(plain: Console, log: Path) -> None:
    for _ in range(64):
        plain.driver.queue(1).send([b"x"])
    plain.driver.queue(1).kick()
    plain.machine.io_loops["io"].step()
    assert plain.sent(0) <= 64
    plain.machine.settle()
    assert log.read_bytes() == b"x" * 64


def test_event_on_port_0_does_not_need_its_queues(tmp_path: Path) -> None:
    with console(f"socket:chan={tmp_path}/sock", start=False) as c:
        c.driver.start(queues=[TO_GUEST, FROM_GUEST])
        client = connect(tmp_path)
        client.send(b"x")
        c.bring_up(0)
        assert c.machine.failures == []
        client.close()
