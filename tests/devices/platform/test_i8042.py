"""The keyboard controller with nothing plugged in, as drivers probe it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.platform.i8042 import KeyboardController
from tests.devices.platform.parts import Level

OUTPUT, SYSTEM, UNLOCKED, AUX, TIMEOUT = 0x01, 0x04, 0x10, 0x20, 0x40


class Rig:
    """The controller behind its two ports."""

    def __init__(self) -> None:
        self.irq = Level()
        self.resets = 0
        self.controller = KeyboardController(self.irq, self._count_reset)

    def _count_reset(self) -> None:
        self.resets += 1

    @property
    def status(self) -> int:
        return self.controller.control.read(0, 1)

    def command(self, value: int, *arguments: int) -> None:
        self.controller.control.write(0, 1, value)
        for argument in arguments:
            self.controller.data.write(0, 1, argument)

    def take(self) -> int | None:
        """The waiting byte, if there is one."""
        return self.controller.data.read(0, 1) if self.status & OUTPUT else None


def test_idle_status_is_unlocked_and_empty() -> None:
    assert Rig().status == SYSTEM | UNLOCKED


@pytest.mark.parametrize(("command", "answer"), [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x01), (0xC0, 0x00), (0xD0, 0x03)])
def test_command_answers(command: int, answer: int) -> None:
    rig = Rig()
    rig.command(command)
    assert rig.take() == answer
    assert rig.take() is None


def test_mode_byte_reads_back_and_keeps_the_aux_port_off() -> None:
    rig = Rig()
    rig.command(0x60, 0x47)
    rig.command(0x20)
    assert rig.take() == 0x67


def test_ram_reads_back() -> None:
    rig = Rig()
    rig.command(0x7F, 0x99)
    rig.command(0x3F)
    assert rig.take() == 0x99


def test_system_flag_follows_the_mode_byte() -> None:
    rig = Rig()
    rig.command(0x60, 0x01)
    assert rig.status & SYSTEM == 0


def test_keyboard_interface_off_and_on_shows_in_the_mode_byte() -> None:
    rig = Rig()
    for command, bit in ((0xAD, 0x10), (0xAE, 0)):
        rig.command(command)
        rig.command(0x20)
        taken = rig.take()
        assert taken is not None
        assert taken & 0x10 == bit


def test_byte_for_the_keyboard_times_out_at_once() -> None:
    rig = Rig()
    rig.controller.data.write(0, 1, 0xF2)
    assert rig.status & (OUTPUT | TIMEOUT | AUX) == OUTPUT | TIMEOUT
    assert rig.take() == 0xFE
    assert rig.status & (OUTPUT | TIMEOUT) == 0


def test_byte_for_the_mouse_times_out_at_once() -> None:
    rig = Rig()
    rig.command(0xD4, 0xF2)
    assert rig.status & (OUTPUT | TIMEOUT | AUX) == OUTPUT | TIMEOUT | AUX
    assert rig.take() == 0xFE


def test_aux_loopback_is_not_answered_from_an_aux_port() -> None:
    rig = Rig()
    rig.command(0xD3, 0x5A)
    assert rig.status & AUX == 0
    assert rig.take() == 0x5A


def test_byte_put_into_the_output_buffer_comes_back() -> None:
    rig = Rig()
    rig.command(0xD2, 0x42)
    assert rig.take() == 0x42


def test_output_port_is_storage() -> None:
    rig = Rig()
    rig.command(0xD1, 0xDF)
    rig.command(0xD0)
    assert rig.take() == 0xDF
    assert rig.resets == 0


def test_interrupt_follows_the_output_buffer() -> None:
    rig = Rig()
    rig.command(0xAA)
    assert rig.irq.asserted
    rig.take()
    assert not rig.irq.asserted


def test_each_byte_makes_an_edge_even_when_the_last_was_not_taken() -> None:
    rig = Rig()
    rig.command(0xAA)
    rig.command(0xAB)
    assert rig.irq.edges == [True, False, True]


def test_interrupt_disabled_in_the_mode_byte_does_not_come() -> None:
    rig = Rig()
    rig.command(0x60, 0x44)
    rig.command(0xAA)
    assert rig.irq.edges == []
    assert rig.take() == 0x55


def test_pulse_resets_the_machine() -> None:
    rig = Rig()
    rig.command(0xFE)
    assert rig.resets == 1


def test_unknown_command_does_nothing() -> None:
    rig = Rig()
    rig.command(0x01)
    assert rig.take() is None
    assert rig.resets == 0


def test_command_replaces_one_that_waits_for_its_argument() -> None:
    rig = Rig()
    rig.command(0x60)
    rig.command(0xAB)
    rig.take()
    rig.controller.data.write(0, 1, 0x00)
    assert rig.take() == 0xFE, "the byte went to the keyboard"


def test_reset_empties_and_lets_the_interrupt_go() -> None:
    rig = Rig()
    rig.command(0x60, 0)
    rig.command(0x20)
    rig.controller.reset()
    assert rig.status == SYSTEM | UNLOCKED
    assert not rig.irq.asserted


@given(accesses=st.lists(st.tuples(st.sampled_from(["data", "control", "take"]), st.integers(0, 255)), max_size=60))
def test_any_sequence_never_raises_and_input_is_always_ready(accesses: list[tuple[str, int]]) -> None:
    rig = Rig()
    for port, value in accesses:
        if port == "take":
            rig.take()
        else:
            getattr(rig.controller, port).write(0, 1, value)
        assert rig.status & 0x02 == 0
