"""The interval timer: counters by the data sheet, ports, the gate at 0x61, interrupts."""

from collections.abc import Iterator

import attrs
import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.platform.pit import HZ, SHORTEST_S, Pit
from acrn_dm.devices.platform.pit_counter import Counter, Mode

NS = 1_000_000_000


def counting(mode: int, count: int, *, gate: bool = True, bcd: bool = False) -> Counter:
    counter = Counter(gate=gate)
    counter.set_mode(mode, bcd)
    counter.load(count, 0)
    return counter


def outputs(counter: Counter, ticks: int) -> str:
    return "".join("-_"[not counter.output(t)] for t in range(ticks))


# Counters


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (0, "____------"),
        (2, "---_---_--"),
        (3, "--__--__--"),
        (4, "----_-----"),
        (6, "---_---_--"),
        (7, "--__--__--"),
    ],
)
def test_output_over_time(mode: int, shown: str) -> None:
    assert outputs(counting(mode, 4), 10) == shown


def test_square_wave_of_odd_count_is_longer_high() -> None:
    assert outputs(counting(3, 5), 10) == "---__---__"


@pytest.mark.parametrize(
    ("mode", "values"),
    [(0, [4, 3, 2, 1, 0, 0xFFFF]), (2, [4, 3, 2, 1, 4, 3]), (3, [4, 2, 4, 2, 4, 2]), (4, [4, 3, 2, 1, 0, 0xFFFF])],
)
def test_value_over_time(mode: int, values: list[int]) -> None:
    counter = counting(mode, 4)
    assert [counter.value(t) for t in range(6)] == values


def test_count_0_is_the_largest() -> None:
    assert counting(2, 0).reload == 0x1_0000
    assert counting(2, 0, bcd=True).reload == 10_000


def test_decimal_counter_shows_digits() -> None:
    counter = counting(0, 0x0105, bcd=True)
    assert [counter.value(t) for t in (0, 5, 6, 105, 106)] == [0x105, 0x100, 0x99, 0, 0x9999]


def test_gate_stops_terminal_count_and_lets_it_go_on() -> None:
    counter = counting(0, 10)
    counter.set_gate(False, 4)
    assert (counter.value(100), counter.output(100)) == (6, False)
    counter.set_gate(True, 100)
    assert (counter.value(103), counter.output(105), counter.output(106)) == (3, False, True)


@pytest.mark.parametrize("mode", [2, 3])
def test_gate_stops_periodic_counter_high_and_begins_anew(mode: int) -> None:
    counter = counting(mode, 10)
    counter.set_gate(False, 8)
    assert counter.output(8)
    assert counter.next_rise(8) is None
    counter.set_gate(True, 50)
    assert counter.next_rise(50) == 60


@pytest.mark.parametrize(("mode", "shown"), [(1, "-____---"), (5, "-----_--")])
def test_gate_triggers_one_shot_and_strobe(mode: int, shown: str) -> None:
    counter = counting(mode, 4, gate=False)
    assert outputs(counter, 5) == "-----"
    counter.set_gate(True, 100)
    assert "-" + "".join("-_"[not counter.output(100 + t)] for t in range(7)) == shown
    counter.set_gate(False, 102)
    counter.set_gate(True, 103)  # triggered again
    assert counter.output(103) is (mode == 5)


def test_count_loaded_while_the_gate_is_low_waits() -> None:
    counter = counting(0, 5, gate=False)
    assert counter.value(100) == 5
    counter.set_gate(True, 100)
    assert counter.output(105)


@pytest.mark.parametrize(
    ("mode", "now", "rise"), [(0, 0, 4), (0, 4, None), (2, 0, 4), (2, 4, 8), (3, 7, 8), (4, 0, 5), (4, 5, None)]
)
def test_next_rise(mode: int, now: int, rise: int | None) -> None:
    assert counting(mode, 4).next_rise(now) == rise


def test_mode_without_a_count_never_rises() -> None:
    counter = Counter()
    counter.set_mode(2, False)
    assert counter.next_rise(0) is None
    assert counter.output(0)
    assert counter.mode is Mode.RATE


# Ports


@attrs.define(eq=False)
class Rig:
    """A timer on a clock that the test turns."""

    now_ns: int = 0
    levels: list[bool] = attrs.field(factory=list)
    pit: Pit = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pit = Pit(self.levels.append, lambda: self.now_ns)

    def ticks(self, count: int) -> None:
        """Let so many ticks pass from 0."""
        self.now_ns = -(-count * NS // HZ)

    def program(self, counter: int, mode: int, count: int, access: int = 3) -> None:
        self.pit.write(3, 1, counter << 6 | access << 4 | mode << 1)
        if access & 1:
            self.pit.write(counter, 1, count & 0xFF)
        if access & 2:
            self.pit.write(counter, 1, count >> 8)

    def word(self, counter: int) -> int:
        return self.pit.read(counter, 1) | self.pit.read(counter, 1) << 8


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_count_is_read_low_byte_first(rig: Rig) -> None:
    rig.program(0, 2, 0x1234)
    rig.ticks(4)
    assert rig.word(0) == 0x1230
    assert rig.word(0) == 0x1230


@pytest.mark.parametrize(("access", "count", "seen"), [(1, 0x34, 0x34), (2, 0x1200, 0x12)])
def test_one_byte_access(rig: Rig, access: int, count: int, seen: int) -> None:
    rig.program(0, 2, count, access)
    assert [rig.pit.read(0, 1) for _ in range(3)] == [seen] * 3


def test_latched_count_stands_still_until_it_is_read(rig: Rig) -> None:
    rig.program(0, 0, 0x1000)
    rig.ticks(1)
    rig.pit.write(3, 1, 0x00)
    rig.ticks(500)
    rig.pit.write(3, 1, 0x00)  # a second latch before that changes nothing
    assert rig.word(0) == 0x0FFF
    assert rig.word(0) == 0x1000 - 500


def test_read_back_latches_status_and_count_of_several(rig: Rig) -> None:
    rig.program(0, 2, 0x1000)
    rig.program(2, 0, 0x2000, 3)
    rig.pit.write(3, 1, 0b1100_1010)  # both, counters 0 and 2
    assert rig.pit.read(0, 1) == 0b1011_0100  # output high, both bytes, mode 2
    assert rig.pit.read(2, 1) == 0b0011_0000
    assert rig.word(0) == 0x1000


def test_read_back_status_says_that_no_count_was_written(rig: Rig) -> None:
    rig.pit.write(3, 1, 0x36)
    rig.pit.write(3, 1, 0b1110_0010)  # status only, counter 0
    assert rig.pit.read(0, 1) & 0x40


@pytest.mark.parametrize("size", [2, 4])
def test_wider_access_is_nobodys(rig: Rig, size: int) -> None:
    rig.pit.write(0, size, 0)
    assert rig.pit.read(0, size) == (1 << 8 * size) - 1


def test_control_word_cannot_be_read(rig: Rig) -> None:
    assert rig.pit.read(3, 1) == 0xFF


def test_gate_and_output_of_counter_2_are_at_port_0x61(rig: Rig) -> None:
    """As Linux calibrates its time stamp counter: gate up, mode 0, 50 ms, look at the output."""
    rig.pit.speaker.write(0, 1, 0x01)
    rig.program(2, 0, HZ // 20)
    rig.ticks(HZ // 20 - 1)
    assert not rig.pit.speaker.read(0, 1) & 0x20
    rig.ticks(HZ // 20)
    assert rig.pit.speaker.read(0, 1) & 0x20


def test_counter_2_waits_for_its_gate(rig: Rig) -> None:
    rig.program(2, 0, 100)
    rig.ticks(1000)
    assert not rig.pit.speaker.read(0, 1) & 0x20
    rig.pit.speaker.write(0, 1, 1)
    rig.ticks(1101)
    assert rig.pit.speaker.read(0, 1) & 0x21 == 0x21


def test_refresh_bit_toggles(rig: Rig) -> None:
    seen = set()
    for micros in range(0, 100, 5):
        rig.now_ns = micros * 1000
        seen.add(rig.pit.speaker.read(0, 1) & 0x10)
    assert seen == {0, 0x10}


# Interrupts


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    made = IoLoop("test")
    yield made
    made.close()


def test_periodic_counter_interrupts_again_and_again(loop: IoLoop) -> None:
    levels: list[bool] = []
    pit = Pit(levels.append)
    pit.attach(loop)
    for port, value in ((3, 0x34), (0, 1193 & 0xFF), (0, 1193 >> 8)):
        pit.write(port, 1, value)
    while levels.count(True) < 4:
        loop.step(0.1)
    assert levels[:6] == [True, False, True, False, True, False]
    pit.reset()
    del levels[:]
    loop.step(0.01)
    assert levels == []
    pit.close()


def test_one_shot_interrupts_once(loop: IoLoop) -> None:
    levels: list[bool] = []
    pit = Pit(levels.append)
    pit.attach(loop)
    for port, value in ((3, 0x30), (0, 0), (0, 1)):
        pit.write(port, 1, value)
    while not levels:
        loop.step(0.1)
    loop.step(0.01)
    assert levels == [True]
    pit.write(3, 1, 0x30)  # a new mode takes the output down
    assert levels == [True, False]
    pit.close()


def test_fastest_period_is_bounded(loop: IoLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    pit = Pit(lambda level: None)
    pit.attach(loop)
    monkeypatch.setattr(pit._timer, "arm", asked.append)
    for port, value in ((3, 0x14), (0, 2)):  # low byte only, mode 2: 596,591 Hz
        pit.write(port, 1, value)
    assert asked[-1] == SHORTEST_S
    pit.close()
