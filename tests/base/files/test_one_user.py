"""Files that one process at a time uses: who has one is told, and a file that is free costs no search."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.base.files import one_user
from acrn_dm.base.process import processes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "out"
    file.write_bytes(b"text")
    return file


def no_search(wanted: Callable[[os.stat_result], bool]) -> None:
    raise AssertionError("the files of all processes were looked through")


def test_free_file_is_asked_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "openers", no_search)
    assert one_user.holder(path) is None
    with path.open("ab") as file:
        assert one_user.take(file.fileno())


def test_holder_is_named_until_it_lets_go(path: Path) -> None:
    with path.open("ab") as file, path.open("ab") as other:
        assert one_user.take(file.fileno())
        assert one_user.holder(path) == "this process"
        assert not one_user.take(other.fileno())
    assert one_user.holder(path) is None


def test_file_that_can_not_be_opened_is_searched_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("ab") as file:
        assert one_user.take(file.fileno())
        monkeypatch.setattr(one_user, "_free", lambda path: False)
        assert one_user.holder(path) == "this process"


def test_file_that_is_not_there_is_nobody_s(tmp_path: Path) -> None:
    assert one_user.holder(tmp_path / "none") is None
