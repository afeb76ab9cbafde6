"""Rules of GPIO controllers (virtio 5.18)."""

import struct

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import Wires
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import VirtioDriver

GPIO = ("gpio",)
WITH_IRQ = ("IRQ",)
IRQ = 1 << 0
REQUESTS, EVENTS = 0, 1
GET_LINE_NAMES, GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE, SET_IRQ_TYPE = range(1, 7)
OK, ERR = 0, 1
NO_DIRECTION, OUTPUT, INPUT = 0, 1, 2
NO_IRQ, RISING, FALLING, BOTH_EDGES, HIGH, LOW = 0, 1, 2, 3, 4, 8
INVALID, VALID = 0, 1


@attrs.define(eq=False)
class Lines:
    """A started controller, and what its lines lead to."""

    bench: Bench
    driver: VirtioDriver

    @property
    def wires(self) -> Wires:
        """Raises NotApplicable."""
        return world(self.bench, Wires)

    @property
    def count(self) -> int:
        """ngpio."""
        return int.from_bytes(self.driver.read_config(0, 2), "little")

    def ask(self, kind: int, line: int, value: int = 0, room: int = 1) -> tuple[int, bytes]:
        """Do one request: (status, value)."""
        shape = Shape(out=(struct.pack("<HHI", kind, line, value),), in_=(1 + room,))
        done = self.bench.exchange(self.driver.queue(REQUESTS), shape)
        return done.data[0], done.data[1:]

    def must(self, kind: int, line: int, value: int = 0) -> int:
        """Do one that has to succeed; returns its value."""
        status, data = self.ask(kind, line, value)
        assert status == OK, f"request {kind} of line {line} with {value} gets status {status}"
        return data[0]

    def watch(self, line: int, kind: int) -> None:
        """Make *line* an input that interrupts."""
        self.must(SET_DIRECTION, line, INPUT)
        self.must(SET_IRQ_TYPE, line, kind)

    def unmask(self, line: int) -> None:
        """Give the buffer that an event comes in."""
        self.driver.queue(EVENTS).send([struct.pack("<H", line)], [1])
        self.driver.queue(EVENTS).kick()
        self.bench.machine.settle()

    def events(self) -> list[int]:
        """Status of each event since the last call."""
        done = self.bench.collect(self.driver.queue(EVENTS), 0)
        assert all(c.written == 1 for c in done), f"events of {[c.written for c in done]} bytes"
        return [c.data[0] for c in done]

    def drive(self, line: int, *levels: int) -> None:
        """Levels follow one another at *line*, from outside."""
        for level in levels:
            self.wires.set_level(line, level)
            self.bench.machine.settle()


def _lines(bench: Bench, *, want: int = 0, without: int = 0) -> Lines:
    return Lines(bench, started(bench, want=want, without=without))


def _names(lines: Lines) -> bytes:
    size = int.from_bytes(lines.driver.read_config(4, 4), "little")
    if not size:
        raise NotApplicable("the lines have no names")
    status, data = lines.ask(GET_LINE_NAMES, 0, room=size)
    assert status == OK, f"GET_LINE_NAMES gets status {status}"
    return data


@rule("gpio.resp.all_fields", kinds=GPIO, over=("interrupts",))
def answers_are_complete(bench: Bench) -> None:
    lines = _lines(bench)
    for kind, line in ((GET_DIRECTION, 0), (GET_VALUE, 0), (SET_DIRECTION, 0), (GET_VALUE, lines.count), (0x99, 0)):
        shape = Shape(out=(struct.pack("<HHI", kind, line, 0),), in_=(2,))
        done = bench.exchange(lines.driver.queue(REQUESTS), shape)
        assert done.written == 2, f"the answer to request {kind} has {done.written} bytes"
        assert done.data[0] in (OK, ERR), f"request {kind} is answered with {done.data.hex()}"


@rule("gpio.cfg.all_fields", kinds=GPIO)
def configuration_is_complete(bench: Bench) -> None:
    assert bench.config_size >= 8, f"the configuration has {bench.config_size} bytes"
    lines = _lines(bench)
    assert lines.count >= 1, "there are no lines"
    assert lines.ask(GET_DIRECTION, lines.count - 1)[0] == OK, "the last line is not there"


@rule("d.gpio.padding", kinds=GPIO)
def padding_is_zero(bench: Bench) -> None:
    assert bench.config[2:4] == bytes(2), f"padding is {bench.config[2:4].hex()}"


@rule("gpio.cfg.names0", kinds=GPIO)
def names_size_is_zero_without_names(bench: Bench) -> None:
    lines = _lines(bench)
    size = int.from_bytes(lines.driver.read_config(4, 4), "little")
    status, _ = lines.ask(GET_LINE_NAMES, 0, room=max(size, 1))
    if status == OK and size:
        raise NotApplicable("the lines have names")
    assert size == 0, f"gpio_names_size is {size}, GET_LINE_NAMES gets status {status}"


@rule("gpio.cfg.names_size", kinds=GPIO)
def names_size_is_that_of_all_names(bench: Bench) -> None:
    lines = _lines(bench)
    data = _names(lines)
    assert data[-1] == 0, "the names do not end where gpio_names_size says"
    assert data.count(0) == lines.count, f"{data.count(0)} names of {lines.count} lines are in gpio_names_size bytes"


@rule("gpio.names.strings", kinds=GPIO)
def names_are_unique_strings(bench: Bench) -> None:
    names = [name for name in _names(_lines(bench)).split(b"\0") if name]
    assert len(names) == len(set(names)), f"a name is there twice: {names}"


@rule("d.gpio.names_block", kinds=GPIO)
def names_are_ascii_in_the_order_of_lines(bench: Bench) -> None:
    lines = _lines(bench)
    data = _names(lines)
    names = data.split(b"\0")
    assert len(names) == lines.count + 1, f"{len(names) - 1} names for {lines.count} lines"
    assert data.isascii(), f"names are {data!r}"


@rule("d.gpio.status_err", kinds=GPIO)
def wrong_requests_are_errors(bench: Bench) -> None:
    lines = _lines(bench)
    wrong = [(0, 0, 0), (7, 0, 0), (0xFFFF, 0, 0)]
    wrong += [(kind, lines.count, 0) for kind in (GET_DIRECTION, SET_DIRECTION, GET_VALUE, SET_VALUE)]
    wrong += [(SET_DIRECTION, 0, 3), (SET_VALUE, 0, 2), (GET_VALUE, 0xFFFF, 0)]
    for kind, line, value in wrong:
        status, _ = lines.ask(kind, line, value)
        assert status == ERR, f"request {kind} of line {line} with {value} gets status {status}"
    assert lines.ask(GET_DIRECTION, 0)[0] == OK


@rule("d.gpio.dir_get", kinds=GPIO)
def direction_is_the_one_that_was_set(bench: Bench) -> None:
    lines = _lines(bench)
    for direction in (OUTPUT, INPUT, NO_DIRECTION, INPUT):
        lines.must(SET_DIRECTION, 0, direction)
        got = lines.must(GET_DIRECTION, 0)
        assert got == direction, f"GET_DIRECTION brings {got} after {direction} was set"


@rule("d.gpio.set_value_latched", kinds=GPIO)
def value_is_applied_when_a_line_becomes_an_output(bench: Bench) -> None:
    for value in (1, 0, 1):
        lines = _lines(bench)
        lines.must(SET_DIRECTION, 0, NO_DIRECTION)
        lines.must(SET_VALUE, 0, value)
        assert lines.wires.level(0) is None, "a line that is no output is driven"
        lines.must(SET_DIRECTION, 0, OUTPUT)
        assert lines.wires.level(0) == value, f"the line is {lines.wires.level(0)}, {value} was set before"
        lines.must(SET_VALUE, 0, 1 - value)
        assert lines.wires.level(0) == 1 - value, "a value that is set does not reach the line"


@rule("dm.gpio.value", kinds=GPIO)
def value_is_the_level_of_the_line(bench: Bench) -> None:
    lines = _lines(bench)
    lines.must(SET_DIRECTION, 0, INPUT)
    for level in (1, 0, 1):
        lines.drive(0, level)
        assert lines.must(GET_VALUE, 0) == level, f"GET_VALUE does not bring {level}"


@rule("gpio.order.same_line", kinds=GPIO)
def requests_of_a_line_are_done_in_order(bench: Bench) -> None:
    lines = _lines(bench)
    queue, count = lines.driver.queue(REQUESTS), 8
    sent = []
    for n in range(count):
        direction = (OUTPUT, INPUT)[n % 2]
        sent.append(queue.send([struct.pack("<HHI", SET_DIRECTION, 0, direction)], [2]))
        sent.append(queue.send([struct.pack("<HHI", GET_DIRECTION, 0, 0)], [2]))
    queue.kick()
    done = bench.collect(queue, len(sent))
    assert [c.token for c in done] == sent, f"requests of one line are answered in the order {[c.token for c in done]}"
    values = [c.data[1] for c in done[1::2]]
    assert values == [OUTPUT, INPUT] * (count // 2), f"GET_DIRECTION between SET_DIRECTIONs brings {values}"


@rule("gpio.dir_none.discard", kinds=GPIO)
def line_without_a_direction_has_no_state(bench: Bench) -> None:
    lines = _lines(bench)
    lines.must(SET_VALUE, 0, 1)
    lines.must(SET_DIRECTION, 0, OUTPUT)
    lines.must(SET_DIRECTION, 0, NO_DIRECTION)
    assert lines.must(GET_DIRECTION, 0) == NO_DIRECTION
    assert lines.wires.level(0) is None, "a line without a direction is driven"
    lines.must(SET_DIRECTION, 0, OUTPUT)
    assert lines.wires.level(0) == 0, "the value of before is kept"
    if lines.driver.features & IRQ:
        lines.must(SET_DIRECTION, 0, NO_DIRECTION)
        lines.drive(0, 0)
        lines.watch(0, RISING)
        lines.must(SET_DIRECTION, 0, NO_DIRECTION)
        lines.must(SET_DIRECTION, 0, INPUT)
        lines.drive(0, 1)
        lines.unmask(0)
        assert VALID not in lines.events(), "the interrupt type of before is kept"


@rule("gpio.irq.edge_latch", kinds=GPIO, needs=WITH_IRQ)
def masked_edge_is_kept(bench: Bench) -> None:
    for kind, levels in ((RISING, (0, 1)), (FALLING, (1, 0)), (BOTH_EDGES, (0, 1))):
        lines = _lines(bench, want=IRQ)
        lines.drive(0, levels[0])
        lines.watch(0, kind)
        lines.drive(0, levels[1])
        lines.unmask(0)
        assert lines.events() == [VALID], f"an edge of interrupt type {kind} is lost while masked"


@rule("gpio.irq.level_nolatch", kinds=GPIO, needs=WITH_IRQ)
def masked_level_is_not_kept(bench: Bench) -> None:
    for kind, active in ((HIGH, 1), (LOW, 0)):
        lines = _lines(bench, want=IRQ)
        lines.drive(0, 1 - active)
        lines.watch(0, kind)
        lines.drive(0, active, 1 - active)
        lines.unmask(0)
        assert lines.events() == [], "a level that is over interrupts"
        lines.drive(0, active)
        assert lines.events() == [VALID], "a level does not interrupt"


@rule("gpio.irq.disable_discard", kinds=GPIO, needs=WITH_IRQ)
def disabled_interrupt_forgets_its_edge(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 0)
    lines.watch(0, RISING)
    lines.drive(0, 1)
    lines.must(SET_IRQ_TYPE, 0, NO_IRQ)
    lines.must(SET_IRQ_TYPE, 0, RISING)
    lines.unmask(0)
    assert lines.events() == [], "an edge of before the interrupt was disabled is kept"
    lines.drive(0, 0, 1)
    assert lines.events() == [VALID]


@rule("gpio.event.unmasked_enabled", kinds=GPIO, needs=WITH_IRQ)
def event_needs_both(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 0)
    lines.watch(0, RISING)
    lines.drive(0, 1, 0)
    assert lines.events() == [], "an event comes while masked"
    lines.unmask(0)
    assert lines.events() == [VALID]
    lines.must(SET_IRQ_TYPE, 0, NO_IRQ)
    lines.unmask(0)
    lines.drive(0, 1, 0)
    assert VALID not in lines.events(), "an event comes of a disabled interrupt"


@rule("gpio.event.disable_returns", kinds=GPIO, needs=WITH_IRQ)
def disabled_interrupt_returns_its_buffer(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 0)
    lines.watch(0, RISING)
    lines.unmask(0)
    assert lines.events() == []
    lines.must(SET_IRQ_TYPE, 0, NO_IRQ)
    assert lines.events() == [INVALID], "the buffer of a disabled interrupt does not come back as INVALID"


@rule("d.gpio.irq_masked_init", kinds=GPIO, needs=WITH_IRQ)
def every_buffer_brings_one_event(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 0)
    lines.watch(0, RISING)
    lines.unmask(0)
    lines.drive(0, 1, 0, 1)
    assert lines.events() == [VALID], "delivery does not mask again"
    lines.unmask(0)
    assert lines.events() == [VALID], "what happened meanwhile is lost"


@rule("d.gpio.irq_valid", kinds=GPIO, needs=WITH_IRQ, over=("interrupts",))
def event_is_valid(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 0)
    lines.watch(0, RISING)
    lines.unmask(0)
    lines.drive(0, 1)
    assert lines.events() == [VALID]


@rule("d.gpio.irq_unmask_first", kinds=GPIO, needs=WITH_IRQ)
def buffer_of_a_disabled_interrupt_comes_back(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.must(SET_DIRECTION, 0, INPUT)
    lines.unmask(0)
    assert lines.events() == [INVALID], "a buffer for an interrupt that is not enabled does not come back as INVALID"


@rule("d.gpio.irq_level_renotify", kinds=GPIO, needs=WITH_IRQ)
def level_that_lasts_interrupts_again(bench: Bench) -> None:
    lines = _lines(bench, want=IRQ)
    lines.drive(0, 1)
    lines.watch(0, HIGH)
    for _ in range(3):
        lines.unmask(0)
        assert lines.events() == [VALID], "a level that is still active does not interrupt again"


@rule("d.gpio.eventq_exists", kinds=GPIO)
def event_queue_is_there_with_interrupts_only(bench: Bench) -> None:
    driver = started(bench)
    assert driver.registers.queue_size(REQUESTS), "there is no request queue"
    there = bool(driver.registers.queue_size(EVENTS))
    if bench.offered & IRQ:
        assert there, "IRQ is offered without an event queue"
    else:
        assert not there, "there is an event queue without IRQ"
