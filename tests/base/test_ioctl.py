"""base._ioctl: a driver's file, through the kernel's vhost and ACRN's module, which are made of it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.backends.kernel._vhost import NodeFile
from acrn_dm.base._ioctl import DeviceFile
from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.acrn.module._hsm import Device


@pytest.fixture(params=[NodeFile, Device])
def kind(request: pytest.FixtureRequest) -> Callable[[str], DeviceFile]:
    made: Callable[[str], DeviceFile] = request.param
    return made


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = tmp_path / "node"
    made.touch()
    return str(made)


def test_file_that_is_not_there_is_told_with_path_and_errno(kind: Callable[[str], DeviceFile], tmp_path: Path) -> None:
    with pytest.raises(HostError, match=rf"open {tmp_path}/none: .*ENOENT") as caught:
        kind(f"{tmp_path}/none")
    assert caught.value.err == errno.ENOENT


def test_descriptor_is_not_for_child_processes(kind: Callable[[str], DeviceFile], path: str) -> None:
    assert not os.get_inheritable(kind(path).fd)


def test_descriptor_that_took_over_the_number_is_left_alone(kind: Callable[[str], DeviceFile], path: str) -> None:
    file = kind(path)
    number = file.fd
    file.close()
    other = os.open(path, os.O_RDONLY)
    try:
        os.dup2(other, number)
        file.close()
        del file
        os.fstat(number)
    finally:
        os.close(number)
        if other != number:
            os.close(other)


def test_closed_file_says_so_and_answers_ebadf(path: str) -> None:
    file = Device(path)
    file.close()
    assert file.fd == -1
    assert [file.ioctl(0, 0, sleeps) for sleeps in (True, False)] == [-errno.EBADF] * 2
