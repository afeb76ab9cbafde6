"""Which socket is whose."""

import os
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.export.sockets import Place, places

A, B = Path("/run/a"), Path("/run/b")


def activation(**changes: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/", **changes}


def test_one_path_for_several_has_their_numbers_appended() -> None:
    assert [place.path for place in places([A], [], 3, {})] == [Path(f"/run/a{i}") for i in range(3)]
    assert places([A], [], 1, {}) == [Place(path=A)]


def test_paths_and_descriptors_are_the_devices_in_their_order() -> None:
    assert [place.path for place in places([B, A], [], 2, {})] == [B, A]
    assert [place.fd for place in places([], [9, 7], 2, {})] == [9, 7]


def test_what_systemd_passed_is_taken_and_told_to_no_child() -> None:
    environ = activation()
    assert [place.fd for place in places([], [], 2, environ)] == [3, 4]
    assert environ == {"HOME": "/"}


def test_what_systemd_passed_to_another_process_or_is_not_needed_stays() -> None:
    environ = activation(LISTEN_PID="1")
    with pytest.raises(ConfigError, match="is needed"):
        places([], [], 2, environ)
    assert environ == activation(LISTEN_PID="1")
    assert places([A], [], 1, environ) == [Place(path=A)]
    assert environ == activation(LISTEN_PID="1")


@pytest.mark.parametrize("count", ["", "x", "0", "-1", "1000", "9" * 5000, "²"])
def test_count_that_systemd_would_not_write_is_refused(count: str) -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        places([], [], 1, activation(LISTEN_FDS=count))


@pytest.mark.parametrize(
    ("paths", "fds", "count", "word"),
    [([A, B], [], 3, "2 sockets for 3 devices"), ([], [3], 2, "1 sockets for 2"), ([A, A], [], 2, "at one socket")],
)
def test_sockets_that_do_not_go_with_the_devices_are_refused(
    paths: list[Path], fds: list[int], count: int, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        places(paths, fds, count, {})
