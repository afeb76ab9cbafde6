"""Reading the user's image files."""

import os
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot.files import KeptFiles, read_image


def test_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"abc")
    assert read_image(path, "-k", 3).data == b"abc"


def test_missing_file_names_option_and_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"-r: .*missing.*: No such file") as caught:
        read_image(tmp_path / "missing", "-r", 10)
    assert caught.value.option == "-r"


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read_image(tmp_path, "-k", 10)


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_image(tmp_path / "fifo", "-k", 10)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="empty"):
        read_image(tmp_path / "empty", "-k", 10)


def test_file_larger_than_the_guest_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"give it more memory \(-m\)"):
        read_image(path, "-k", 1 << 28)


def test_nul_in_the_path_is_the_users_error() -> None:
    with pytest.raises(ConfigError, match="null byte"):
        read_image(Path("a\0b"), "-k", 10)


def test_file_that_shrinks_while_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"abc")
    real = os.fstat

    def fstat_before_truncation(fd: int) -> os.stat_result:
        status = real(fd)
        os.truncate(path, 1)
        return status

    monkeypatch.setattr(os, "fstat", fstat_before_truncation)
    with pytest.raises(ConfigError, match="changed while it was read"):
        read_image(path, "-k", 10)


def test_file_is_opened_once_whatever_becomes_of_it(tmp_path: Path) -> None:
    path, files = tmp_path / "kernel", KeptFiles()
    path.write_bytes(b"abc")
    files.read(path, "-k", 3)
    path.write_bytes(b"other")
    assert files.read(path, "-k", 3).data == b"abc"
    path.unlink()
    assert files.read(path, "-k", 3).data == b"abc"


def test_kept_file_has_the_limit_and_the_name_of_each_reading(tmp_path: Path) -> None:
    path, files = tmp_path / "kernel", KeptFiles()
    path.write_bytes(b"abc")
    files.read(path, "-k", 3)
    with pytest.raises(ConfigError, match=r"-r: .*kernel': 3 bytes; the guest has room for 2: give it more memory"):
        files.read(path, "-r", 2)


def test_file_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    path, files = tmp_path / "kernel", KeptFiles()
    with pytest.raises(ConfigError):
        files.read(path, "-k", 3)
    path.write_bytes(b"abc")
    assert files.read(path, "-k", 3).data == b"abc"


def test_what_the_machine_wrote_itself_is_read(tmp_path: Path) -> None:
    path, files = tmp_path / "variables", KeptFiles()
    path.write_bytes(b"abcd")
    files.read(path, "--ovmf", 4)
    files.replace(path, b"xy")
    assert files.read(path, "--ovmf", 4).data == b"xycd"
