"""Lines for a stderr that nobody reads, or reads slowly: nobody waits, and what is lost is said."""

import contextlib
import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.backends.wire.message import Request
from acrn_dm.base.process import stderr
from acrn_dm.base.process.stderr import LineWriter, StderrHandler, encoded, lost_records, say
from acrn_dm.cli.logs import logging_to
from acrn_dm.cli.values import LogSettings
from acrn_dm.devices.virtio_console.backend import PtyBackend
from tests.backends.user.user_rig import returns

PATIENCE_S = 20.0
LOST = re.compile(rb"acrn-dm: WARNING: (\d+) log records were lost here: nobody read them\n")
QUESTION = struct.pack("<III", Request.GET_QUEUE_NUM, 1, 0)


@attrs.define(eq=False)
class Pipe:
    """A pipe that nobody reads until ``rest`` does."""

    reader: int
    writer: int

    def fill(self) -> int:
        """Until nothing fits; how many bytes that were."""
        os.set_blocking(self.writer, False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += os.write(self.writer, b"\0")
        os.set_blocking(self.writer, True)
        return count

    def let_go(self) -> None:
        """Who waits for room goes on."""
        while select.select([self.reader], [], [], 0.05)[0] and os.read(self.reader, 65536):
            pass

    def read(self, ending: bytes) -> bytes:
        """What comes until *ending* has."""
        data = b""
        while not data.endswith(ending):
            assert select.select([self.reader], [], [], PATIENCE_S)[0], f"after {data[-100:]!r} nothing came"
            data += os.read(self.reader, 65536)
        return data.lstrip(b"\0")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    pipe.let_go()
    os.close(pipe.reader)
    with contextlib.suppress(OSError):
        os.close(pipe.writer)


@pytest.fixture
def full(pipe: Pipe) -> Pipe:
    pipe.fill()
    return pipe


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr, "PATIENCE_S", 0.05)


@contextlib.contextmanager
def stderr_is(pipe: Pipe) -> Iterator[None]:
    """While the block runs; pytest sets it again between a fixture and its test."""
    with open(pipe.writer, "w", closefd=False) as stream, contextlib.redirect_stderr(stream):
        try:
            yield
        finally:
            pipe.let_go()


def writer_to(pipe: Pipe) -> LineWriter:
    return LineWriter(pipe.writer, lost_records("acrn-dm"))


def test_lines_arrive_in_their_order(pipe: Pipe) -> None:
    writer = writer_to(pipe)
    for number in range(100):
        writer.put(b"%d\n" % number)
    assert pipe.read(b"99\n").split() == [b"%d" % number for number in range(100)]


def test_full_pipe_stops_nobody_and_what_is_dropped_is_counted_where_it_is_missing(full: Pipe) -> None:
    writer = writer_to(full)

    def talk() -> None:
        for number in range(20_000):
            writer.put(b"line %d\n" % number)

    assert returns(talk, PATIENCE_S)
    seen = full.read(b"lost here: nobody read them\n")
    kept = seen.count(b"line ")
    assert int(LOST.findall(seen)[0]) == 20_000 - kept
    assert len(seen) < stderr.MAX_UNSENT + 200
    writer.put(b"later\n")
    assert full.read(b"later\n") == b"later\n"


def test_line_after_a_gap_comes_after_the_note_of_the_gap(full: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr, "MAX_UNSENT", 20)
    writer = writer_to(full)
    for text in (b"first\n", b"second is too much\n"):
        writer.put(text)
    monkeypatch.setattr(stderr, "MAX_UNSENT", 2000)
    writer.put(b"third\n")
    seen = full.read(b"third\n")
    assert LOST.sub(b"GAP\n", seen) == b"first\nGAP\nthird\n"


def test_line_that_is_longer_than_the_bound_is_written_when_nothing_waits(pipe: Pipe) -> None:
    line = b"x" * (2 * stderr.MAX_UNSENT) + b"\n"
    writer_to(pipe).put(line)
    assert pipe.read(b"\n") == line


def test_stderr_that_somebody_made_non_blocking_loses_nothing(full: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        try:
            return write(fd, data)
        finally:
            tried.set()

    monkeypatch.setattr(stderr.os, "write", watched)
    os.set_blocking(full.writer, False)
    writer = writer_to(full)
    writer.put(b"here\n")
    assert tried.wait(PATIENCE_S)
    assert full.read(b"here\n") == b"here\n"


def test_reader_that_is_gone_is_no_failure() -> None:
    gone = Pipe(*os.pipe())
    os.close(gone.reader)
    writer = writer_to(gone)
    writer.put(b"x\n")
    assert writer.flush(PATIENCE_S)
    writer.close()
    os.close(gone.writer)


def test_close_waits_for_a_reader_that_is_slow_but_not_for_ever(full: Pipe, impatient: None) -> None:
    writer = writer_to(full)
    writer.put(b"x\n")
    assert returns(writer.close)


def test_signal_handler_may_say_something_while_its_thread_does(pipe: Pipe) -> None:
    """It runs between any two instructions, with the lock held or not."""
    writer = writer_to(pipe)

    def interrupted() -> None:
        with writer._changed:
            writer.put(b"from the handler\n")

    assert returns(interrupted)
    assert pipe.read(b"handler\n") == b"from the handler\n"


def test_log_record_stops_nobody(full: Pipe, impatient: None) -> None:
    """The main loop's, say, and every thread's that wants to log after it."""

    def talk() -> None:
        with logging_to(LogSettings(console=5), None):
            for number in range(100):
                logging.getLogger("acrn_dm.x").error("text %d", number)

    with stderr_is(full):
        assert returns(talk)


def test_last_words_stop_nobody(full: Pipe, impatient: None) -> None:
    with stderr_is(full):
        assert returns(lambda: say("acrn-dm: the end"))


def test_pseudo_terminal_that_tells_its_path_stops_nobody(full: Pipe, impatient: None) -> None:
    backend = PtyBackend("port")
    with stderr_is(full):
        assert returns(backend.open)
    backend.close()


def test_buffer_in_the_place_of_stderr_is_written_at_once(capsys: Any) -> None:
    handler = StderrHandler("acrn-dm")
    handler.handle(logging.makeLogRecord({"msg": "text", "levelname": "ERROR"}))
    assert capsys.readouterr().err == "acrn-dm: ERROR: text\n"


def test_record_that_can_not_be_formatted_says_where_it_is_from(capsys: Any) -> None:
    record = {"msg": "%d", "args": ("x",), "levelname": "ERROR", "pathname": "some.py", "lineno": 7}
    StderrHandler("acrn-dm").handle(logging.makeLogRecord(record))
    assert capsys.readouterr().err.startswith("acrn-dm: ERROR: log record of some.py:7: TypeError(")


def test_text_that_the_encoding_lacks_is_escaped() -> None:
    with open(os.devnull, "w", encoding="ascii") as stream, contextlib.redirect_stderr(stream):
        assert encoded("\udc80ä") == b"\\udc80\\xe4\n"


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["acrn_dm", "--no-such-option"], 64), (["acrn_dm.export.vhost_user.cli", "console", "--no-such-option"], 64)],
    ids=["acrn-dm", "acrn-dm-vhost-user"],
)
def test_program_that_nobody_reads_ends_with_its_code(full: Pipe, argv: list[str], code: int) -> None:
    process = subprocess.Popen([sys.executable, "-m", *argv], stderr=full.writer)
    assert process.wait(PATIENCE_S * 3) == code


def test_served_device_that_nobody_reads_serves_on_and_obeys_sigterm(full: Pipe, tmp_path: Path) -> None:
    path = tmp_path / "s"
    argv = [
        sys.executable,
        "-m",
        "acrn_dm.export.vhost_user.cli",
        "console",
        f"--socket-path={path}",
        "file:port0=/dev/null",
    ]
    process = subprocess.Popen(argv, stderr=full.writer)
    for says, answered in ((bytes(12), False), (QUESTION, True)):  # the first is disconnected, with a record
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            connect(client, path)
            client.send(says)
            assert bool(client.recv(100)) == answered
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def connect(client: socket.socket, path: Path) -> None:
    """When it listens."""
    tries = threading.Event()
    for _ in range(int(PATIENCE_S * 100)):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client.connect(str(path))
            return
        tries.wait(0.01)
    raise AssertionError(f"nobody listens at {path}")
