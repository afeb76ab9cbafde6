"""Rules of input devices (virtio 5.8)."""

import struct
from collections.abc import Sequence

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import world
from acrn_dm.testing.conformance.outside.world import Person
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import VirtioDriver

INPUT = ("input",)
EVENTS, STATUS = 0, 1  # queues
SELECT_AT, SUBSEL_AT, SIZE_AT, UNION_AT = 0, 1, 2, 8
UNSET, ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS, EV_BITS, ABS_INFO = 0, 1, 2, 3, 0x10, 0x11, 0x12
SYN, KEY, REL, ABS, LED = 0, 1, 2, 3, 0x11  # event types of Linux
REPORT = (SYN, 0, 0)
EVENT = struct.Struct("<HHi")
UNION = 128
PLENTY = 32  # buffers, of the 64 that any event queue has

Event = tuple[int, int, int]


@attrs.define(eq=False)
class Station:
    """A started input device, and who uses it."""

    bench: Bench
    driver: VirtioDriver

    @property
    def person(self) -> Person:
        """Raises NotApplicable."""
        return world(self.bench, Person)

    def ask(self, select: int, subsel: int = 0) -> bytes:
        """What is behind a selection, as long as ``size`` says."""
        registers = self.driver.registers
        registers.write_config(SELECT_AT, 1, select)
        registers.write_config(SUBSEL_AT, 1, subsel)
        size = registers.read_config(SIZE_AT, 1)
        assert size <= UNION, f"size is {size} for {select:#x}, {subsel:#x}"
        return bytes(registers.read_config(UNION_AT + i, 1) for i in range(size))

    def post(self, count: int) -> None:
        """Give buffers for events."""
        for _ in range(count):
            self.driver.queue(EVENTS).send([], [EVENT.size])
        self.driver.queue(EVENTS).kick()
        self.bench.machine.settle()

    def events(self) -> list[Event]:
        """Events since the last call."""
        found: list[Event] = []
        for done in self.bench.collect(self.driver.queue(EVENTS), 0):
            assert done.written == EVENT.size, f"an event of {done.written} bytes"
            found.append(EVENT.unpack(done.data))
        return found

    def bits(self, kind: int) -> set[int]:
        """Codes of event type *kind* that the device says it sends."""
        data = self.ask(EV_BITS, kind)
        return {8 * n + bit for n, byte in enumerate(data) for bit in range(8) if byte >> bit & 1}


def _station(bench: Bench) -> Station:
    return Station(bench, bench.start())


def _updates(events: Sequence[Event]) -> list[list[Event]]:
    """Events by update; the last is one that has not ended, if there is such."""
    groups: list[list[Event]] = [[]]
    for event in events:
        groups[-1].append(event)
        if event[:2] == REPORT[:2]:
            groups.append([])
    return groups if groups[-1] else groups[:-1]


@rule("input.cfg.size0", kinds=INPUT)
def nothing_is_said_about_what_is_not_there(bench: Bench) -> None:
    s = _station(bench)
    assert s.ask(UNSET) == b"", "size is not 0 for select 0"
    known = {ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS, EV_BITS, ABS_INFO}
    for select in range(256):
        for subsel in (0, 1, 0x7F, 0xFF):
            if select not in known:
                assert s.ask(select, subsel) == b"", f"size is not 0 for select {select:#x}, subsel {subsel:#x}"
    for select in (ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS):
        for subsel in (1, 0xFF):
            assert s.ask(select, subsel) == b"", f"size is not 0 for select {select:#x}, subsel {subsel:#x}"
    for kind in range(0x20, 256):  # EV_MAX is 0x1f
        assert s.ask(EV_BITS, kind) == b"", f"size is not 0 for events of type {kind:#x}"


@rule("d.inp.cfg_select", kinds=INPUT)
def selection_changes_what_is_read(bench: Bench) -> None:
    s = _station(bench)
    first = {(select, subsel): s.ask(select, subsel) for select in (ID_NAME, EV_BITS, ID_DEVIDS) for subsel in range(4)}
    assert any(first.values()), "the device says nothing about itself"
    for selection, data in reversed(first.items()):
        assert s.ask(*selection) == data, f"{selection} reads differently the second time"
    size_of_name = len(first[ID_NAME, 0])
    assert size_of_name, "the device has no name"
    assert s.ask(UNSET) == b"", "size stays when nothing is selected any more"


@rule("d.inp.string", kinds=INPUT)
def strings_have_no_terminator(bench: Bench) -> None:
    s = _station(bench)
    for select in (ID_NAME, ID_SERIAL):
        data = s.ask(select)
        assert b"\0" not in data, f"string {select} has a NUL in it: {data!r}"
        data.decode()
    assert s.ask(ID_NAME), "the device has no name"


@rule("d.inp.devids", kinds=INPUT)
def identity_has_four_numbers(bench: Bench) -> None:
    data = _station(bench).ask(ID_DEVIDS)
    if not data:
        raise NotApplicable("the device has no ID_DEVIDS")
    assert len(data) == 8, f"ID_DEVIDS has {len(data)} bytes"
    assert any(data), "ID_DEVIDS is all zero"


@rule("d.inp.evbits", kinds=INPUT)
def every_event_is_in_a_bitmap(bench: Bench) -> None:
    s = _station(bench)
    assert any(s.bits(kind) for kind in range(1, 0x20)), "no event type has codes"
    s.post(PLENTY)
    for update in s.person.repertoire:
        s.person.act(update)
        for kind, code, _ in s.events():
            assert kind == SYN or code in s.bits(kind), f"event {kind:#x}.{code:#x} is in no bitmap"


@rule("d.inp.absinfo", kinds=INPUT)
def every_axis_has_its_range(bench: Bench) -> None:
    s = _station(bench)
    axes = s.bits(ABS)
    for axis in axes:
        data = s.ask(ABS_INFO, axis)
        assert len(data) == 20, f"ABS_INFO of axis {axis} has {len(data)} bytes"
        low, high = struct.unpack_from("<ii", data)
        assert low < high, f"axis {axis} goes from {low} to {high}"
    for axis in set(range(0x40)) - axes:
        assert s.ask(ABS_INFO, axis) == b"", f"axis {axis}, which is not there, has ABS_INFO"


@rule("d.inp.event", kinds=INPUT, over=("interrupts",))
def events_come_as_updates(bench: Bench) -> None:
    s = _station(bench)
    s.post(PLENTY)
    for update in s.person.repertoire:
        s.person.act(update)
        assert s.events() == [*update, REPORT], f"{update} does not arrive, ended by EV_SYN"


@rule("d.inp.status", kinds=INPUT)
def status_events_are_consumed(bench: Bench) -> None:
    s = _station(bench)
    wanted = [(LED, min(s.bits(LED), default=0), value) for value in (1, 0)]
    s.person.lights()
    for event in wanted:
        done = s.driver.queue(STATUS).transfer([EVENT.pack(*event)])
        assert done.written == 0, f"{done.written} bytes are written into a status buffer"
    if not s.bits(LED):
        raise NotApplicable("the device has no lights")
    assert list(s.person.lights()) == wanted, "what the driver said about lights does not get out"


@rule("input.drop.not_partial", kinds=INPUT)
def no_part_of_an_update_is_visible(bench: Bench) -> None:
    s = _station(bench)
    update = max(s.person.repertoire, key=len)
    for room in range(1, len(update) + 1):
        s = _station(bench)
        s.post(room)
        s.person.act(update)
        got = s.events()
        assert got == [], f"{len(got)} of {len(update) + 1} events of an update come where there is room for {room}"


@rule("input.drop.whole", kinds=INPUT)
def updates_come_whole_or_not_at_all(bench: Bench) -> None:
    s = _station(bench)
    first, second = s.person.repertoire[:2]
    s.post(1)
    s.person.act(first)
    s.person.act(second)
    s.post(PLENTY)
    for got in _updates(s.events()):
        assert got in ([*first, REPORT], [*second, REPORT]), f"after a shortage {got} comes"
    s.person.act(first)
    assert _updates(s.events())[-1:] == [[*first, REPORT]], "no event comes after a shortage"
