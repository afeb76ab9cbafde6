"""acrn_dm.devices.terminal.modes: raw and back, in the front only."""

import os
import termios

import pytest

from acrn_dm.devices.terminal.modes import RawMode, in_background


def set_shells_modes(fd: int) -> None:
    """Something that is neither raw nor what was there at first."""
    modes = termios.tcgetattr(fd)
    modes[3] |= termios.ISIG
    termios.tcsetattr(fd, termios.TCSANOW, modes)


def send_to_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)


def test_terminal_of_another_foreground_group_is_left_alone(
    pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pty[1]
    before = termios.tcgetattr(theirs)
    send_to_background(monkeypatch)
    raw = RawMode(theirs)
    assert not raw.enter()
    assert termios.tcgetattr(theirs) == before
    raw.leave()


def test_terminal_that_another_group_has_meanwhile_keeps_what_that_has_set(
    pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pty[1]
    raw = RawMode(theirs)
    assert raw.enter()
    set_shells_modes(theirs)
    shells = termios.tcgetattr(theirs)
    send_to_background(monkeypatch)
    raw.leave()
    assert termios.tcgetattr(theirs) == shells


def test_what_is_found_after_another_had_it_is_put_back(pty: tuple[int, int]) -> None:
    theirs = pty[1]
    raw = RawMode(theirs)
    raw.enter()
    made = termios.tcgetattr(theirs)
    set_shells_modes(theirs)
    shells = termios.tcgetattr(theirs)
    raw.enter()
    assert termios.tcgetattr(theirs) == made
    raw.leave()
    assert termios.tcgetattr(theirs) == shells


def test_raw_modes_found_are_ours_and_not_put_back(pty: tuple[int, int]) -> None:
    theirs = pty[1]
    before = termios.tcgetattr(theirs)
    raw = RawMode(theirs)
    raw.enter()
    raw.enter()
    raw.leave()
    raw.leave()
    assert termios.tcgetattr(theirs) == before


def test_reads_return_one_byte_at_once_whatever_was_set_before(pty: tuple[int, int]) -> None:
    ours, theirs = pty
    attributes = termios.tcgetattr(theirs)
    attributes[3] &= ~termios.ICANON
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 200, 0
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    raw = RawMode(theirs)
    raw.enter()
    os.write(ours, b"x")
    assert os.read(theirs, 10) == b"x"
    raw.leave()


def test_handler_that_interrupts_the_work_on_the_modes_does_not_wait_for_it(pty: tuple[int, int]) -> None:
    raw = RawMode(pty[1])
    raw.enter()
    made = termios.tcgetattr(pty[1])
    with raw._lock:
        assert not raw.step_aside()
    assert termios.tcgetattr(pty[1]) == made
    assert raw.step_aside()
    assert termios.tcgetattr(pty[1]) != made


def test_file_that_is_no_terminal_is_in_front_and_has_no_modes() -> None:
    read, write = os.pipe()
    raw = RawMode(read)
    assert raw.enter()
    assert not in_background(read)
    raw.leave()
    os.close(read)
    os.close(write)


def test_terminal_that_was_hung_up_is_survived() -> None:
    ours, theirs = os.openpty()
    raw = RawMode(theirs)
    raw.enter()
    os.close(ours)
    raw.enter()
    raw.leave()
    os.close(theirs)
