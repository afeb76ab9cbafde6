"""Locks of images: who keeps whom out, in whatever order they come, and who is told to have one."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.base.files import file_locks
from acrn_dm.base.files.file_locks import Access, holder, is_free, soon, take

WRITER, READER = Access(), Access(writes=False)
SHARER, LOOKER = Access(shares=True), Access(writes=False, shares=True)
LOW, HIGH, MIDDLE = (Access(part=p) for p in ((0, 512), (512, 512), (256, 512)))
LOW_READER = Access(writes=False, part=(0, 512))
KINDS = {
    "writer": WRITER,
    "reader": READER,
    "sharer": SHARER,
    "looker": LOOKER,
    "low": LOW,
    "high": HIGH,
    "middle": MIDDLE,
    "low reader": LOW_READER,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "PAUSE_S", 0.0)


@contextmanager
def opened(path: Path, access: Access) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR if access.writes else os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, KINDS)))
def test_locks_keep_out_exactly_who_is_excluded(path: Path, one: str, other: str) -> None:
    first, second = KINDS[one], KINDS[other]
    with opened(path, first) as a, opened(path, second) as b:
        assert take(a, first)
        free = not first.excludes(second)
        assert (is_free(b, second), take(b, second)) == (free, free)


def test_refused_user_leaves_no_lock(path: Path) -> None:
    for access in (WRITER, MIDDLE):
        with opened(path, LOW) as a, opened(path, access) as b, opened(path, HIGH) as c:
            assert take(a, LOW)
            assert not take(b, access)
            assert take(c, HIGH)


def test_looking_takes_nothing(path: Path) -> None:
    with opened(path, WRITER) as a, opened(path, WRITER) as b:
        assert is_free(a, WRITER)
        assert take(b, WRITER)


def test_lock_ends_with_its_descriptor(path: Path) -> None:
    with opened(path, WRITER) as a:
        assert take(a, WRITER)
    with opened(path, WRITER) as b:
        assert take(b, WRITER)


def test_second_part_is_let_in_while_the_first_is_between_its_bytes_and_its_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path, LOW) as a, opened(path, HIGH) as b:
        assert take(a, LOW)
        file_locks._set(a, file_locks.fcntl.F_UNLCK, file_locks.PARTS, 1)
        monkeypatch.setattr(
            file_locks.time, "sleep", lambda s: file_locks._set(a, file_locks.fcntl.F_RDLCK, file_locks.PARTS, 1)
        )
        assert take(b, HIGH)


def test_holder_in_this_process_is_named(path: Path) -> None:
    with opened(path, WRITER) as a, opened(path, WRITER) as b:
        assert holder(b) is None
        take(a, WRITER)
        assert holder(b) == "this process"
        assert holder(a) is None


def test_holder_elsewhere_is_named_by_its_program(path: Path) -> None:
    code = (
        "import os, sys; from acrn_dm.base.files.file_locks import *; fd = os.open(sys.argv[1], os.O_RDWR);"
        "take(fd, Access()); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with opened(path, WRITER) as fd:
            assert not is_free(fd, WRITER)
            assert holder(fd) == f"process {process.pid} (-c)"
        process.stdin.close()


def test_file_system_without_locks_is_said_and_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(file_locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_locks.fcntl, "fcntl", refuse)
    with opened(path, WRITER) as fd:
        assert take(fd, WRITER)
        assert is_free(fd, WRITER)
    assert [r.getMessage() for r in caplog.records] == [
        f"{path} can't be locked (No locks available): nobody else is kept from it"
    ]


def test_lock_that_is_nobodys_is_waited_for(path: Path) -> None:
    """As that of a killed process with an io_uring, which is gone before its lock."""
    answers = iter([False, False, True])
    with opened(path, WRITER) as fd:
        assert soon(lambda: next(answers), fd)


def test_lock_of_somebody_is_not_waited_for(path: Path) -> None:
    answers = iter([False, True])
    with opened(path, WRITER) as a, opened(path, WRITER) as b:
        take(a, WRITER)
        assert not soon(lambda: next(answers), b)
    assert next(answers)
