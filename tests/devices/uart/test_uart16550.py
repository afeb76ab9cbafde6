"""The 16550A's registers, FIFOs and interrupt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.uart.uart16550 import BACKLOG, Uart16550
from tests.devices.platform.parts import Level

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR
RX, TX, LINE, MODEM = 1, 2, 4, 8
NONE, IS_TX, IS_RX, IS_LINE, IS_TIMEOUT, IS_MODEM = 0x01, 0x02, 0x04, 0x06, 0x0C, 0x00
THRE = 0x60
FIFOS = 0xC0


class Wire:
    """The other end: keeps what was sent; ``limit`` bytes fit."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.limit = 1 << 20
        self.resumed = 0

    def send(self, byte: int) -> None:
        if self.has_room():
            self.sent.append(byte)

    def has_room(self) -> bool:
        return len(self.sent) < self.limit

    def resume(self) -> None:
        self.resumed += 1


class Rig:
    """A UART on a wire, its registers by index."""

    def __init__(self, *, fifos: bool = True) -> None:
        self.irq = Level()
        self.uart = Uart16550(self.irq)
        self.wire = Wire()
        self.uart.line = self.wire
        if fifos:
            self[FCR] = 0x01

    def __getitem__(self, register: int) -> int:
        return self.uart.read(register, 1)

    def __setitem__(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)


def divisor(rig: Rig) -> int:
    rig[LCR] |= 0x80
    return rig[DATA] | rig[IER] << 8


def test_power_on_registers() -> None:
    rig = Rig(fifos=False)
    assert [rig[r] for r in (DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR)] == [0, 0, NONE, 0, 0, THRE, 0xB0, 0]
    assert divisor(rig) == 115200 // 9600


def test_written_bytes_are_sent_in_order() -> None:
    rig = Rig()
    for byte in b"login:":
        rig[DATA] = byte
    assert rig.wire.sent == b"login:"


def test_without_a_line_output_vanishes() -> None:
    uart = Uart16550(Level())
    uart.write(DATA, 1, 65)
    assert uart.read(LSR, 1) == THRE


def test_received_bytes_are_read_in_order() -> None:
    rig = Rig()
    rig.uart.receive(b"ab")
    assert rig[LSR] == THRE | 1
    assert [rig[DATA], rig[DATA]] == [97, 98]
    assert rig[LSR] == THRE
    assert rig[DATA] == 0


def test_divisor_latch_hides_data_and_interrupt_enable() -> None:
    rig = Rig()
    rig[IER] = 0x0F
    rig[LCR] = 0x83
    rig[DATA], rig[IER] = 0x01, 0x00
    assert (rig[DATA], rig[IER]) == (1, 0)
    rig[LCR] = 0x03
    assert rig[IER] == 0x0F
    assert rig.wire.sent == b""


def test_divisor_zero_is_taken() -> None:
    rig = Rig()
    rig.uart.write(LCR, 1, 0x80)
    rig.uart.write(DATA, 2, 0)
    assert divisor(rig) == 0


def test_scratch_and_masks() -> None:
    rig = Rig()
    rig[SCR], rig[IER], rig[MCR] = 0xA5, 0xFF, 0xFF
    assert (rig[SCR], rig[IER], rig[MCR]) == (0xA5, 0x0F, 0x1F)


def test_line_and_modem_status_are_read_only() -> None:
    rig = Rig()
    rig[LSR], rig[MSR] = 0, 0
    assert (rig[LSR], rig[MSR]) == (THRE, 0xB0)


def test_fifo_enable_shows_in_identification_as_linux_detects_a_16550a() -> None:
    rig = Rig(fifos=False)
    assert rig[IIR] & FIFOS == 0
    rig[FCR] = 0x01
    assert rig[IIR] & FIFOS == FIFOS
    rig[FCR] = 0xC0
    assert rig[IIR] & FIFOS == 0, "other bits count only with bit 0"


def test_wide_accesses_are_split_into_bytes() -> None:
    rig = Rig()
    rig.uart.write(MCR, 4, 0x77_00_00_0B)
    assert rig[MCR] == 0x0B
    assert rig[SCR] == 0x77
    assert rig.uart.read(LSR, 2) == 0xB0 << 8 | THRE
    assert rig.uart.read(SCR, 2) == 0xFF77


def test_receive_interrupt_follows_the_data() -> None:
    rig = Rig(fifos=False)
    rig[IER] = RX
    rig.uart.receive(b"x")
    assert rig.irq.asserted
    assert rig[IIR] == IS_RX
    rig[DATA]
    assert not rig.irq.asserted
    assert rig[IIR] == NONE


@pytest.mark.parametrize(("fcr", "trigger"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_level_tells_full_from_timed_out(fcr: int, trigger: int) -> None:
    rig = Rig()
    rig[FCR] = fcr
    rig[IER] = RX
    rig.uart.receive(bytes(trigger))
    assert rig[IIR] == FIFOS | IS_RX
    rig[DATA]
    if trigger > 1:
        assert rig[IIR] == FIFOS | IS_TIMEOUT
        assert rig.irq.asserted


def test_input_that_is_enabled_later_interrupts_then() -> None:
    rig = Rig()
    rig.uart.receive(b"x")
    assert not rig.irq.asserted
    rig[IER] = RX
    assert rig.irq.asserted


def test_enabling_the_transmit_interrupt_interrupts_at_once() -> None:
    rig = Rig()
    rig[IER] = TX
    assert rig.irq.asserted
    assert rig[IIR] == FIFOS | IS_TX
    assert not rig.irq.asserted, "reading the identification acknowledges"
    assert rig[IIR] == FIFOS | NONE


def test_transmit_interrupt_comes_after_each_write_and_not_when_disabled() -> None:
    rig = Rig()
    rig[IER] = TX
    rig[IIR]
    rig[DATA] = 1
    assert rig[IIR] == FIFOS | IS_TX
    rig[IER] = 0
    rig[DATA] = 2
    assert not rig.irq.asserted


def test_transmit_interrupt_makes_edges_that_an_isa_line_sees() -> None:
    rig = Rig()
    rig[IER] = TX
    for byte in b"abc":
        rig[IIR]
        rig[DATA] = byte
    assert rig.irq.edges == [True, False, True, False, True, False, True]


def test_receive_has_priority_over_transmit() -> None:
    rig = Rig()
    rig[IER] = RX | TX
    rig.uart.receive(b"x")
    assert rig[IIR] & 0xF == IS_RX
    rig[DATA]
    assert rig[IIR] & 0xF == IS_TX, "not lost by identifying something else"


def test_full_line_makes_the_transmitter_busy_until_there_is_room() -> None:
    rig = Rig()
    rig[IER] = TX
    rig.wire.limit = 1
    rig[DATA] = 1
    assert rig[LSR] & THRE == 0
    rig[IIR]
    assert not rig.irq.asserted
    rig.wire.limit = 2
    rig.uart.room_again()
    assert rig[LSR] & THRE == THRE
    assert rig.irq.asserted


def test_byte_written_while_busy_is_lost_and_nothing_else() -> None:
    rig = Rig()
    rig.wire.limit = 1
    for byte in b"ab":
        rig[DATA] = byte
    rig.wire.limit = 10
    rig[DATA] = ord("c")
    assert rig.wire.sent == b"ac"


def test_fifo_holds_16_bytes_and_the_rest_follows() -> None:
    rig = Rig()
    data = bytes(range(100))
    rig.uart.receive(data)
    assert bytes(rig[DATA] for _ in range(100)) == data
    assert rig[LSR] & 2 == 0, "no overrun"


def test_without_fifos_one_byte_is_held_and_the_rest_follows() -> None:
    rig = Rig(fifos=False)
    rig.uart.receive(b"abc")
    assert bytes(rig[DATA] for _ in range(3)) == b"abc"


def test_clearing_the_receive_fifo_drops_what_it_holds() -> None:
    rig = Rig()
    rig.uart.receive(b"abc")
    rig[FCR] = 0x03
    assert rig[LSR] & 1 == 0


def test_switching_fifos_drops_what_they_hold() -> None:
    rig = Rig()
    rig.uart.receive(b"abc")
    rig[FCR] = 0
    assert rig[LSR] & 1 == 0


def test_backlog_is_bounded_and_asks_for_more_when_half_empty() -> None:
    rig = Rig()
    assert rig.uart.room() == BACKLOG
    rig.uart.receive(bytes(BACKLOG + 100))
    assert rig.uart.room() == 16, "what the FIFO took"
    rig.wire.resumed = 0
    rig[DATA]
    assert rig.wire.resumed == 0
    for _ in range(BACKLOG // 2 + 16):
        rig[DATA]
    assert rig.wire.resumed


def test_loopback_returns_what_is_sent_and_cuts_the_line_off() -> None:
    rig = Rig()
    rig[MCR] = 0x10
    rig.uart.receive(b"outside")
    rig[DATA] = 0x42
    assert rig[DATA] == 0x42
    assert rig[LSR] & 1 == 0
    assert rig.wire.sent == b""


def test_loopback_overrun_sets_the_flag_and_the_interrupt_until_read() -> None:
    rig = Rig()
    rig[MCR] = 0x10
    rig[IER] = LINE
    for byte in range(17):
        rig[DATA] = byte
    assert rig[IIR] & 0xF == IS_LINE
    assert rig[LSR] & 2
    assert rig[LSR] & 2 == 0
    assert not rig.irq.asserted


def test_loopback_mirrors_the_modem_lines_as_linux_checks() -> None:
    rig = Rig()
    rig[MCR] = 0x1A
    assert rig[MSR] & 0xF0 == 0x90
    rig[MCR] = 0x10
    assert rig[MSR] & 0xF0 == 0


def test_modem_status_deltas_interrupt_and_are_cleared_by_reading() -> None:
    rig = Rig()
    rig[IER] = MODEM
    rig[MCR] = 0x10
    assert rig[IIR] & 0xF == IS_MODEM
    assert rig[MSR] & 0x0F == 0x0B, "CTS, DSR and DCD fell"
    assert rig[MSR] & 0x0F == 0
    assert not rig.irq.asserted


def test_ring_counts_at_its_trailing_edge_only() -> None:
    rig = Rig()
    rig[MCR] = 0x10
    rig[MSR]
    rig[MCR] = 0x14
    assert rig[MSR] & 4 == 0
    rig[MCR] = 0x10
    assert rig[MSR] & 4


def test_reset_is_power_on_and_lets_the_line_go() -> None:
    rig = Rig()
    rig[IER] = RX | TX
    rig[LCR], rig[SCR] = 0x83, 0x55
    rig.uart.receive(b"abc")
    rig.uart.reset()
    assert not rig.irq.asserted
    assert [rig[r] for r in (DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR)] == [0, 0, NONE, 0, 0, THRE, 0xB0, 0]
    assert rig.uart.room() == BACKLOG


ACTIONS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 7), st.sampled_from([1, 2, 4])),
    st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
    st.tuples(st.just("receive"), st.just(0), st.integers(0, 40)),
)


@given(actions=st.lists(ACTIONS, max_size=60))
def test_interrupt_line_is_always_what_identification_says(actions: list[tuple[str, int, int]]) -> None:
    rig = Rig()
    for what, register, value in actions:
        if what == "read":
            assert 0 <= rig.uart.read(register, value) < 1 << (8 * value)
        elif what == "write":
            rig[register] = value
        else:
            rig.uart.receive(bytes(value))
        asserted = rig.irq.asserted
        assert asserted == (rig[IIR] & 1 == 0)
