"""acrn_dm.base.files.private_files: modes whatever the umask is, and no way round by links."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.files.private_files import make_folder, open_log, open_or_make


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_folders_are_0700_and_those_above_them_that_are_missing_too(tmp_path: Path, umask: int) -> None:
    os.chmod(tmp_path, 0o755)
    make_folder(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / p) for p in ("a/b/c", "a/b", "a", "")] == [0o700, 0o700, 0o700, 0o755]


def test_folder_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    make_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_file_in_a_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file")


def test_log_is_0600_and_appended_to(tmp_path: Path, umask: int) -> None:
    for text in (b"one", b"two"):
        fd = open_log(tmp_path / "log")
        os.write(fd, text)
        os.close(fd)
    assert mode(tmp_path / "log") == 0o600
    assert (tmp_path / "log").read_bytes() == b"onetwo"


def test_log_of_an_earlier_run_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "log").touch(0o644)
    os.close(open_log(tmp_path / "log"))
    assert mode(tmp_path / "log") == 0o600


@pytest.mark.parametrize("target", ["there", "missing"])
def test_symbolic_link_is_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "log").symlink_to(tmp_path / target)
    with pytest.raises(OSError) as caught:
        open_log(tmp_path / "log")
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_fifo_is_no_log_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="no regular file"):
        open_log(tmp_path / "log")
    os.close(reader)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        open_log(tmp_path / "log")


def test_file_that_is_made_is_0600_and_one_that_is_there_stays_as_it_is(tmp_path: Path, umask: int) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "there").chmod(0o644)
    for name, expected in (("there", 0o644), ("new", 0o600)):
        os.close(open_or_make(tmp_path / name, os.O_WRONLY))
        assert mode(tmp_path / name) == expected


def test_file_is_opened_through_a_link_and_not_made_through_one(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    fd = open_or_make(tmp_path / "link", os.O_RDONLY)
    assert os.read(fd, 10) == b"text"
    os.close(fd)
    (tmp_path / "there").unlink()
    with pytest.raises(FileExistsError):
        open_or_make(tmp_path / "link", os.O_WRONLY)
    assert not (tmp_path / "there").exists()
