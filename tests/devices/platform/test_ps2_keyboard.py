"""The keyboard that nobody types on, alone and behind its controller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.platform.i8042 import KeyboardController
from acrn_dm.devices.platform.ps2_keyboard import MAX_QUEUE, Ps2Keyboard
from tests.devices.platform.parts import Level

ACK, RESEND, OUTPUT = 0xFA, 0xFE, 0x01


def answers(*sent: int) -> list[int]:
    keyboard = Ps2Keyboard()
    for value in sent:
        keyboard.command(value)
    return list(keyboard.output)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([0xFF], [ACK, 0xAA]),
        ([0xF2], [ACK, 0xAB, 0x83]),
        ([0xEE], [0xEE]),
        ([0xF4], [ACK]),
        ([0xF5], [ACK]),
        ([0xF6], [ACK]),
        ([0xED, 0x07], [ACK, ACK]),
        ([0xF3, 0x20], [ACK, ACK]),
        ([0xF0, 0x00], [ACK, ACK, 2]),
        ([0xF0, 0x01, 0xF0, 0x00], [ACK, ACK, ACK, ACK, 1]),
        ([0xF0, 0x01, 0xF6, 0xF0, 0x00], [ACK, ACK, ACK, ACK, ACK, 2]),
        ([0x12], [RESEND]),
    ],
    ids=lambda v: " ".join(f"{b:02x}" for b in v),
)
def test_command_is_answered_as_a_keyboard_does(sent: list[int], expected: list[int]) -> None:
    assert answers(*sent) == expected


def test_command_in_place_of_an_argument_is_a_command() -> None:
    assert answers(0xED, 0xF4) == [ACK, ACK]
    assert answers(0xED, 0xF4, 0x02) == [ACK, ACK, RESEND]


def test_reset_forgets_what_was_not_read() -> None:
    assert answers(0xF2, 0xFF) == [ACK, 0xAA]


class Rig:
    """The keyboard behind the controller's ports."""

    def __init__(self) -> None:
        self.irq = Level()
        self.controller = KeyboardController(self.irq, lambda: None, Ps2Keyboard())

    def send(self, value: int) -> None:
        self.controller.data.write(0, 1, value)

    def command(self, value: int) -> None:
        self.controller.control.write(0, 1, value)

    def take_all(self) -> list[int]:
        taken = []
        while self.controller.control.read(0, 1) & OUTPUT:
            taken.append(self.controller.data.read(0, 1))
        return taken


def test_answers_arrive_one_after_the_other_each_with_an_interrupt() -> None:
    rig = Rig()
    rig.send(0xF2)
    assert rig.take_all() == [ACK, 0xAB, 0x83]
    assert rig.irq.edges == [True, False] * 3


def test_answer_waits_while_the_interface_is_off() -> None:
    rig = Rig()
    rig.send(0xF2)
    rig.command(0xAD)
    assert rig.take_all() == [ACK]
    rig.command(0xAE)
    assert rig.take_all() == [0xAB, 0x83]


def test_controllers_own_answer_comes_before_the_keyboards_next_byte() -> None:
    rig = Rig()
    rig.send(0xFF)
    assert rig.controller.data.read(0, 1) == ACK
    rig.command(0xAA)
    assert rig.take_all() == [0x55]


def test_reset_of_the_controller_empties_the_keyboard() -> None:
    rig = Rig()
    rig.send(0xF2)
    rig.controller.reset()
    assert rig.take_all() == []


@given(sent=st.lists(st.integers(0, 255), max_size=100))
def test_keyboard_keeps_at_most_its_buffer(sent: list[int]) -> None:
    assert len(answers(*sent)) <= MAX_QUEUE
