"""Rules of consoles (virtio 5.3)."""

import struct

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.console import ports as con
from acrn_dm.testing.conformance.kinds.console.ports import (
    CONSOLE_PORT,
    DEVICE_ADD,
    DEVICE_READY,
    DEVICE_REMOVE,
    EMERG_AT,
    MULTIPORT,
    PORT_NAME,
    PORT_OPEN,
    PORT_READY,
    RESIZE,
    Console,
    console,
)
from acrn_dm.testing.conformance.rule import NotApplicable, rule

CONSOLE = ("console",)
PORTS = ("MULTIPORT",)
TEXT = bytes(range(32, 127)) * 3


def _up(bench: Bench) -> tuple[Console, list[int], list[con.Message]]:
    c = console(bench, want=MULTIPORT)
    numbers, said = c.introduce()
    assert numbers, "no port is added"
    return c, numbers, said


@rule("d.con.data", kinds=CONSOLE, over=("transport", "interrupts"))
def bytes_pass_in_order_both_ways(bench: Bench) -> None:
    c = console(bench)
    if c.driver.features & MULTIPORT:
        c.introduce()
    for parts in ([TEXT], [TEXT[:1], TEXT[1:100], TEXT[100:]]):
        c.send(0, *parts)
    assert c.came_out(0, 2 * len(TEXT)) == 2 * TEXT, "what the guest sends does not come out as it is"
    sent = c.driver.queue(1).completed()
    assert [done.written for done in sent] == [0, 0], "transmit buffers do not come back, or with bytes in them"
    c.post(0, 64, 1, 16, 512)
    c.host.send(0, TEXT)
    assert c.received(0, len(TEXT)) == TEXT, "what is typed does not reach the guest as it is"


@rule("d.con.vq", kinds=CONSOLE)
def queues_are_numbered_by_port(bench: Bench) -> None:
    c = console(bench)
    queues = c.driver.all_queues()
    assert len(queues) >= 2, "port 0 has no queues"
    if not bench.offered & MULTIPORT:
        assert len(queues) == 2, f"a console of one port has {len(queues)} queues"
        return
    numbers, _ = c.introduce()
    assert len(queues) >= 2 + 2 * c.max_ports, f"{len(queues)} queues for {c.max_ports} ports"
    for port in numbers:
        mark = b"port %d" % port
        c.send(port, mark)
        assert c.came_out(port, len(mark)) == mark, f"queue {con.rx_queue(port) + 1} is not port {port}'s"


@rule("d.con.size", kinds=CONSOLE, needs=("SIZE",))
def another_size_is_told(bench: Bench) -> None:
    c = console(bench, want=con.SIZE, without=MULTIPORT)
    for columns, rows in ((132, 43), (40, 12)):
        before = c.driver.config_interrupts
        c.host.resize(columns, rows)
        bench.machine.settle()
        assert struct.unpack("<HH", c.driver.read_config(0, 4)) == (columns, rows), "cols and rows are not the new ones"
        assert c.driver.config_interrupts > before, "no configuration change notification"


@rule("d.con.ready_flow", kinds=CONSOLE, needs=PORTS)
def ports_are_added_when_the_driver_is_ready(bench: Bench) -> None:
    c = console(bench, want=MULTIPORT)
    c.post_control()
    assert c.messages() == [], "control messages before DEVICE_READY"
    c.control(DEVICE_READY)
    added = [m for m in c.messages() if m.event == DEVICE_ADD]
    assert len(added) == len(c.host.names), f"{len(added)} ports are added, there are {len(c.host.names)}"


@rule("d.con.port_ready_flow", kinds=CONSOLE, needs=PORTS)
def port_is_described_when_it_is_ready(bench: Bench) -> None:
    c = console(bench, want=MULTIPORT)
    c.post_control()
    c.control(DEVICE_READY)
    early = [m for m in c.messages() if m.event != DEVICE_ADD]
    assert early == [], f"messages about ports that are not ready: {early}"
    for port, _ in enumerate(c.host.names):
        c.control(PORT_READY, port)
        said = c.messages()
        assert said, f"nothing is said about port {port}"
        assert {m.port for m in said} == {port}, f"PORT_READY of port {port} is answered with {said}"
        known = {CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME}
        assert {m.event for m in said} <= known, f"PORT_READY is answered with {said}"


@rule("d.con.name", kinds=CONSOLE, needs=PORTS)
def names_have_no_terminator(bench: Bench) -> None:
    c, numbers, said = _up(bench)
    names = {m.port: m.data for m in said if m.event == PORT_NAME}
    assert names == dict(zip(numbers, c.host.names, strict=True)), f"the ports are called {names}"


@rule("d.con.open_both", kinds=CONSOLE, needs=PORTS)
def both_sides_open_a_port(bench: Bench) -> None:
    c, numbers, said = _up(bench)
    port = numbers[-1]
    state = [m.value for m in said if m.event == PORT_OPEN and m.port == port]
    for connected in (False, True, False, True) if state[-1:] == [1] else (True, False, True):
        c.host.connect(port, connected)
        told: list[int] = []
        for _ in range(con.TURNS):
            told += [m.value for m in c.messages() if m.event == PORT_OPEN and m.port == port]
            if told:
                break
        assert told[-1:] == [int(connected)], f"PORT_OPEN {told} when the host's side of port {port} is {connected}"
    c.control(PORT_OPEN, port, 0)
    c.post(port, 64)
    c.host.send(port, b"late")
    assert c.received(port, 1) == b"", "bytes arrive at a port that the driver has closed"
    c.control(PORT_OPEN, port, 1)
    assert c.received(port, 4) == b"late", "bytes that waited for the driver are lost"


@rule("d.con.resize_msg", kinds=CONSOLE, needs=PORTS)
def size_message_has_columns_first(bench: Bench) -> None:
    c, _, said = _up(bench)
    if not any(m.event == CONSOLE_PORT and m.port == 0 for m in said):
        raise NotApplicable("port 0 is no console")
    c.host.resize(132, 43)
    sizes = [m for _ in range(con.TURNS // 10) for m in c.messages() if m.event == RESIZE and m.port == 0]
    assert sizes, "no RESIZE"
    assert sizes[-1].data == struct.pack("<HH", 132, 43), f"RESIZE has {sizes[-1].data.hex()}"


def _emergency(bench: Bench, c: Console) -> None:
    c.host.received(0)
    for byte in b"!?":
        c.driver.registers.write_config(EMERG_AT, 4, byte)
    assert c.came_out(0, 2) == b"!?", "emergency bytes do not come out"


@rule("console.emerg_wr.unconfigured", kinds=CONSOLE, over=("transport",), needs=("EMERG_WRITE",))
def emergency_bytes_need_no_driver(bench: Bench) -> None:
    c = Console(bench, bench.driver())
    c.driver.reset()
    _emergency(bench, c)


@rule("console.emerg_wr.output", kinds=CONSOLE, over=("transport",), needs=("EMERG_WRITE",))
def emergency_bytes_go_out_of_a_running_console(bench: Bench) -> None:
    for without in (0, con.EMERG_WRITE):
        _emergency(bench, console(bench, without=without))


@rule("console.add.existing", kinds=CONSOLE, needs=PORTS)
def port_is_added_once(bench: Bench) -> None:
    c = console(bench, want=MULTIPORT)
    c.post_control(64)
    there: set[int] = set()
    for _ in range(3):  # a driver that is not sure says it again
        c.control(DEVICE_READY)
        for message in c.messages():
            if message.event == DEVICE_ADD:
                assert message.port not in there, f"port {message.port} is added twice"
                there.add(message.port)
            elif message.event == DEVICE_REMOVE:
                there.discard(message.port)
    assert there, "no port is added"


@rule("console.add.range", kinds=CONSOLE, needs=PORTS)
def port_numbers_are_in_range(bench: Bench) -> None:
    c, numbers, _ = _up(bench)
    assert max(numbers) < c.max_ports, f"port {max(numbers)} is added, max_nr_ports is {c.max_ports}"


@rule("console.remove.unknown", kinds=CONSOLE, needs=PORTS)
def only_ports_that_are_there_are_removed(bench: Bench) -> None:
    c = console(bench, want=MULTIPORT)
    c.post_control(64)
    there: set[int] = set()
    said = []
    c.control(DEVICE_READY)
    said += c.messages()
    c.control(DEVICE_READY, value=0)
    for port in (0, c.max_ports, 0xFFFF_FFFF):
        c.control(PORT_READY, port, 0)
        c.control(PORT_OPEN, port, 0)
        said += c.messages()
    for message in said:
        if message.event == DEVICE_REMOVE:
            assert message.port in there, f"port {message.port} is removed, which is not there"
            there.discard(message.port)
        elif message.event == DEVICE_ADD:
            there.add(message.port)
    assert said, "the device says nothing"


@rule("dm.con.foreign_port", kinds=CONSOLE, needs=PORTS)
def message_about_no_port_is_harmless(bench: Bench) -> None:
    c, numbers, _ = _up(bench)
    for port in (c.max_ports, 0x8000_0000, 0xFFFF_FFFF):
        for event in (PORT_READY, PORT_OPEN, 77):
            c.control(event, port)
    assert all(m.port in numbers for m in c.messages()), "the device answers for a port that is not there"
    c.send(numbers[0], b"still there")
    assert c.came_out(numbers[0], 11) == b"still there"
