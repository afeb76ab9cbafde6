"""acrn_dm.devices.terminal.line: input under job control, through a pipe of our own. The loop is stepped."""

import os
import termios
from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.terminal import line as line_module
from acrn_dm.devices.terminal.escape import EscapeFilter
from acrn_dm.devices.terminal.files import share_input, share_output
from acrn_dm.devices.terminal.line import Line, open_lines, open_terminal
from tests.devices.terminal.session import is_raw, set_size

PIPE = 65536


class Jobs:
    """Where this process is for the terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.front = True
        monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + (not self.front))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(line_module, "LOOK_S", 0.001)
    return Jobs(monkeypatch)


def make(terminal: int) -> Line:
    return Line("test", share_input(terminal), share_output(terminal))


def taken(line: Line) -> bytes:
    try:
        return os.read(line.input, PIPE)
    except BlockingIOError:
        return b""


def has_ended(line: Line) -> bool:
    try:
        return os.read(line.input, 1) == b""
    except BlockingIOError:
        return False


def until(loop: IoLoop, condition: Callable[[], Any]) -> None:
    for _ in range(10000):
        if condition():
            return
        loop.step(0.01)
    raise AssertionError("it does not come")


def test_input_comes_through_once_it_is_started(pty: tuple[int, int], loop: IoLoop) -> None:
    ours, theirs = pty
    line = make(theirs)
    os.write(ours, b"early")
    assert taken(line) == b""
    line.start(loop)
    until(loop, lambda: taken(line) == b"early")
    line.close()
    line.close()
    assert open_lines() == ()


def test_background_gets_no_input_and_changes_no_mode(pty: tuple[int, int], loop: IoLoop, jobs: Jobs) -> None:
    ours, theirs = pty
    before = termios.tcgetattr(theirs)
    jobs.front = False
    line = make(theirs)
    line.start(loop)
    os.write(ours, b"for the shell\n")
    loop.run_until_idle()
    assert (taken(line), termios.tcgetattr(theirs)) == (b"", before)
    assert os.read(theirs, 100) == b"for the shell\n"
    line.close()
    assert termios.tcgetattr(theirs) == before


def test_job_brought_to_the_front_is_raw_and_gets_input(pty: tuple[int, int], loop: IoLoop, jobs: Jobs) -> None:
    ours, theirs = pty
    jobs.front = False
    line = make(theirs)
    line.start(loop)
    loop.run_until_idle()
    jobs.front = True
    until(loop, lambda: is_raw(theirs))
    os.write(ours, b"x")
    until(loop, lambda: taken(line) == b"x")
    line.close()


def test_job_sent_to_the_background_leaves_input_to_the_shell(pty: tuple[int, int], loop: IoLoop, jobs: Jobs) -> None:
    ours, theirs = pty
    line = make(theirs)
    line.start(loop)
    loop.run_until_idle()
    jobs.front = False
    os.write(ours, b"for the shell")
    until(loop, lambda: not line.front)
    assert taken(line) == b""
    assert os.read(theirs, 100) == b"for the shell"
    line.close()


def test_read_that_fails_because_the_background_was_entered_meanwhile_is_no_end(
    pty: tuple[int, int], loop: IoLoop, jobs: Jobs
) -> None:
    """SIGTTIN is ignored, so it is EIO."""
    source = share_input(pty[1])
    line = Line("test", source, share_output(pty[1]))
    line.start(loop)
    loop.run_until_idle()

    class Interrupted:
        fd = source.fd
        close = staticmethod(source.close)

        def read(self, limit: int) -> bytes:
            jobs.front = False
            raise OSError(5, "Input/output error")

    line._source = Interrupted()  # type: ignore[assignment]
    os.write(pty[0], b"x")
    until(loop, lambda: not line.front)
    line._source = source
    jobs.front = True
    until(loop, lambda: taken(line) == b"x")
    line.close()


def test_size_is_looked_at_when_the_job_comes_to_the_front(pty: tuple[int, int], loop: IoLoop, jobs: Jobs) -> None:
    """SIGWINCH went to the shell."""
    jobs.front = False
    set_size(pty[1], 80, 24)
    line = make(pty[1])
    seen: list[object] = []
    line.start(loop, resized=lambda: seen.append(line.size))
    loop.run_until_idle()
    set_size(pty[1], 90, 30)
    assert seen == []
    jobs.front = True
    until(loop, lambda: seen)
    assert seen == [(90, 30)]
    line.close()


def test_escape_key_is_seen_while_nobody_reads(pty: tuple[int, int], loop: IoLoop) -> None:
    ours, theirs = pty
    line = make(theirs)
    quits: list[int] = []
    line.start(loop, escape=EscapeFilter(lambda: quits.append(1)))
    for _ in range(8):
        os.write(ours, b"." * 1000)
        loop.run_until_idle()
    os.write(ours, b"\x01x")
    until(loop, lambda: quits)
    assert taken(line) == b"." * 8000 + b"\x01"
    line.close()


def test_input_that_nobody_reads_is_bounded_and_comes_whole(loop: IoLoop) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    line = Line("test", share_input(read), share_output(write))
    line.start(loop)
    sent, quiet = bytearray(), 0
    while quiet < 2:  # full, and still full after the line has had its turn
        piece = bytes([len(sent) // 4096 % 251]) * 4096
        try:
            sent += piece[: os.write(write, piece)]
            quiet = 0
        except BlockingIOError:
            loop.run_until_idle()
            quiet += 1
        assert len(sent) <= 2 * PIPE + 4096 + line_module.CHUNK
    got = bytearray()
    while len(got) < len(sent):
        got += taken(line)
        loop.run_until_idle()
    assert got == sent
    line.close()
    os.close(read)
    os.close(write)


def test_hang_up_ends_the_input(loop: IoLoop) -> None:
    ours, theirs = os.openpty()
    line = make(theirs)
    line.start(loop)
    loop.run_until_idle()
    os.close(ours)
    until(loop, lambda: has_ended(line))
    line.close()
    os.close(theirs)


def test_file_in_the_terminals_place_is_the_end_of_the_input(loop: IoLoop, tmp_path: Any, caplog: Any) -> None:
    (tmp_path / "script").write_text("text")
    with open(tmp_path / "script") as script:
        line = Line("-l com1", share_input(script.fileno()), share_output(script.fileno()))
        line.start(loop)
        loop.run_until_idle()
        assert os.read(line.input, 1) == b""
        line.close()
    assert "-l com1: input from a regular file is not read" in caplog.text


def test_path_of_a_terminal_is_a_line_and_any_other_is_not(pty: tuple[int, int], loop: IoLoop) -> None:
    line = open_terminal(os.ttyname(pty[1]), "test")
    line.start(loop)
    os.write(line.output, b"out")
    assert os.read(pty[0], 10) == b"out"
    line.close()
    with pytest.raises(OSError, match="not a terminal"):
        open_terminal("/dev/null", "test")
