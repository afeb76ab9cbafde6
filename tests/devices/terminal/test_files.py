"""acrn_dm.devices.terminal.files: shared files stay as blocking as they were, and never make us wait."""

import os
import socket
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.devices.terminal import files
from acrn_dm.devices.terminal.files import share_input, share_output

PAIRS = ("pipe", "pty", "socket", "closed pty")


@pytest.fixture(params=PAIRS)
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """(to write to, to read from), both blocking. "closed pty": a terminal that we may use and not open."""
    read: int
    if request.param == "pipe":
        read, write = os.pipe()
    elif request.param == "socket":
        one, other = socket.socketpair()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # less than a pipe holds
        write, read = one.detach(), other.detach()
    else:
        write, read = os.openpty()
        tty.setraw(read)
    if request.param == "closed pty":
        monkeypatch.setattr(os, "open", refuse)
    yield write, read
    os.close(read)
    os.close(write)


def refuse(*args: Any) -> int:
    raise PermissionError(13, "Permission denied")


def fill(fd: int) -> int:
    """Write until there is no room; how much it was."""
    count = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            count += os.write(fd, bytes(4096))
        except BlockingIOError:
            return count
    raise AssertionError("it never says that there is no room")


def test_input_is_read_and_waits_for_nothing(shared: tuple[int, int]) -> None:
    write, read = shared
    source = share_input(read)
    with pytest.raises(BlockingIOError):
        source.read(10)
    os.write(write, b"text")
    assert source.read(10) == b"text"
    assert os.get_blocking(read)
    source.close()
    assert os.get_blocking(read)


def test_output_is_written_and_waits_for_nothing(shared: tuple[int, int]) -> None:
    write, read = shared[::-1] if os.isatty(shared[1]) else shared
    sink = share_output(write)
    os.write(sink.fd, b"text")
    assert os.read(read, 4) == b"text"
    assert fill(sink.fd) > 0
    assert os.get_blocking(write)
    os.set_blocking(read, False)
    sink.close()
    assert os.get_blocking(write)


@pytest.mark.parametrize("shared", ["socket"], indirect=True)
def test_output_through_a_relay_is_complete_when_it_is_closed(shared: tuple[int, int]) -> None:
    write, read = shared
    sink = share_output(write)
    os.write(sink.fd, b"x" * 1000)
    sink.close()
    assert len(os.read(read, 2000)) == 1000


@pytest.mark.parametrize("shared", ["socket"], indirect=True)
def test_relay_whose_reader_takes_nothing_does_not_hold_the_end(
    shared: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CLOSE_S", 0.05)
    sink = share_output(shared[0])
    fill(sink.fd)
    sink.close()
    assert sink.relay is not None
    assert sink.relay.is_alive()
    os.set_blocking(shared[1], False)
    while sink.relay.is_alive():  # its pipe has been closed: it ends
        try:
            os.read(shared[1], 65536)
        except BlockingIOError:
            sink.relay.join(0.01)


def test_relay_whose_reader_has_gone_tells_the_writer() -> None:
    one, other = socket.socketpair()
    sink = share_output(one.fileno())
    other.close()
    os.write(sink.fd, b"x")
    assert sink.relay is not None
    sink.relay.join(30)
    with pytest.raises(BrokenPipeError):
        os.write(sink.fd, b"x")
    sink.close()
    one.close()


@pytest.mark.parametrize("shared", ["socket"], indirect=True)
def test_relay_waits_where_somebody_else_has_made_the_file_non_blocking(shared: tuple[int, int]) -> None:
    write, read = shared
    os.set_blocking(write, False)
    sink = share_output(write)
    total = fill(sink.fd)
    received = 0
    while received < total:
        received += len(os.read(read, 65536))
    sink.close()
    assert received == total


def test_end_of_input_is_seen() -> None:
    read, write = os.pipe()
    source = share_input(read)
    os.close(write)
    assert source.read(10) == b""
    source.close()
    os.close(read)


def test_output_to_a_plain_file_appends_where_it_was(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as log:
        log.write(b"first ")
        log.flush()
        sink = share_output(log.fileno())
        os.write(sink.fd, b"second")
        sink.close()
    assert (tmp_path / "log").read_bytes() == b"first second"


def test_master_of_a_pty_is_not_opened_anew() -> None:
    """That would be another pseudo-terminal."""
    master, other = os.openpty()
    source = share_input(master)
    os.write(other, b"text\n")
    assert source.read(10).startswith(b"text")
    source.close()
    os.close(master)
    os.close(other)
