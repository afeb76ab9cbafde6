"""acrn_dm.devices.terminal.size."""

import os

import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.terminal import size
from acrn_dm.devices.terminal.size import SizeWatch, window_size
from tests.devices.terminal.session import set_size


@pytest.mark.parametrize(("columns", "rows", "expected"), [(132, 43, (132, 43)), (0, 0, None), (80, 0, None)])
def test_size_of_a_terminal(pty: tuple[int, int], columns: int, rows: int, expected: tuple[int, int] | None) -> None:
    set_size(pty[1], columns, rows)
    assert window_size(pty[0]) == window_size(pty[1]) == expected


def test_what_is_no_terminal_has_no_size() -> None:
    read, write = os.pipe()
    assert window_size(read) is None
    os.close(read)
    os.close(write)
    assert window_size(-1) is None


def test_watch_tells_each_change_once(loop: IoLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "LOOK_S", 0.001)
    sizes = iter([(80, 24), (80, 24), (90, 24), (90, 24), None, (90, 24), (80, 24)])
    now: list[tuple[int, int] | None] = [None]
    told: list[tuple[int, int] | None] = []
    looked: list[int] = []

    def look() -> tuple[int, int] | None:
        looked.append(1)
        now[0] = next(sizes, (80, 24))
        return now[0]

    watch = SizeWatch(loop, look, lambda: told.append(now[0]))
    while len(looked) < 10:
        loop.step(1)
    assert told == [(90, 24), (80, 24)]
    watch.close()
    loop.run_until_idle()
    count = len(looked)
    loop.step(0.01)
    assert len(looked) == count
