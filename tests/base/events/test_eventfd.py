"""Eventfds that a peer shares: whatever it does to flags and count, nobody here waits for it."""

import errno
import os
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from acrn_dm.base.events import eventfd
from acrn_dm.base.events.eventfd import SIGNALLED, UNWATCHED, drain, signal
from acrn_dm.base.events.eventfd_helpers import Helpers
from acrn_dm.base.events.ioloop import IoLoop
from tests.backends.user.user_rig import jammed, returns
from tests.base.events.fight_scenes import SCENES
from tools.eventfd_fight import FULL, fight

COUNT_MAX = (1 << 64) - 1  # only the kernel's own signal gets there


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0)  # blocking
    yield fd
    os.close(fd)


@pytest.fixture(params=["kernel", "threads"])
def way(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Both ways of signalling; the first is the one that is used wherever the host has it."""
    return signal if request.param == "kernel" else Helpers().signal


@pytest.fixture
def no_aio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without asynchronous I/O."""

    def refuse() -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(eventfd, "KernelSignal", refuse)
    monkeypatch.setattr(eventfd, "_signal", None)


@pytest.mark.stress
@pytest.mark.parametrize("place", SCENES)
def test_peer_that_fights_over_an_eventfd_never_makes_us_wait(place: str) -> None:
    """``python -m tools.eventfd_fight`` does the same for a minute each."""
    with SCENES[place]() as scene:
        fight(scene.eventfd, scene.signal, seconds=0.5, signals=2000, rounds=300)
        scene.check()


@pytest.mark.stress
@pytest.mark.parametrize("place", [place for place in SCENES if place != "export-call"])  # another process
def test_peer_that_fights_hangs_no_more_than_a_helper_where_the_kernel_can_not_signal(place: str, no_aio: None) -> None:
    with SCENES[place]() as scene:
        fight(scene.eventfd, scene.signal, seconds=0.2, signals=300, rounds=200)
        scene.check()


def test_this_host_signals_by_the_kernel(event: int) -> None:
    signal(event)
    assert not isinstance(getattr(eventfd._signal, "__self__", None), Helpers)


def wait_readable(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(10_000)


def test_signal_adds_one_and_wakes_who_waits(event: int, way: Callable[[int], None]) -> None:
    way(event)
    wait_readable(event)
    assert drain(event) == 1


def test_signals_add_up_past_the_completions_the_kernel_keeps(event: int) -> None:
    for _ in range(10_000):
        signal(event)
    assert drain(event) == 10_000


def test_signal_of_a_full_and_blocking_eventfd_returns_and_it_stays_readable(
    event: int, way: Callable[[int], None]
) -> None:
    with jammed(event):
        assert returns(lambda: way(event))
        wait_readable(event)
        assert drain(event) in (FULL, COUNT_MAX)


def test_signal_of_what_is_no_eventfd_says_so(way: Callable[[int], None]) -> None:
    with open("/dev/null", "rb") as null, pytest.raises(OSError):
        way(null.fileno())


def test_signal_of_a_closed_descriptor_says_so(way: Callable[[int], None]) -> None:
    fd = os.eventfd(0)
    os.close(fd)
    with pytest.raises(OSError):
        way(fd)


def test_signals_from_many_threads_all_arrive(event: int) -> None:
    def hammer() -> None:
        for _ in range(5000):
            signal(event)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drain(event) == 20_000


def test_forked_child_signals_too(event: int) -> None:
    signal(event)
    drain(event)
    child = os.fork()
    if child == 0:
        try:
            signal(event)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert drain(event) == 1


def test_host_without_asynchronous_io_signals_by_helpers(event: int, no_aio: None) -> None:
    signal(event)
    wait_readable(event)
    assert drain(event) == 1
    assert isinstance(eventfd._signal.__self__, Helpers)  # type: ignore[union-attr]


# A semaphore gives its count out one by one: a full one is readable for 2^64 reads


def test_full_semaphore_calls_its_handler_once_for_each_write() -> None:
    fd, loop, calls = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE), IoLoop("test"), []
    os.eventfd_write(fd, FULL)
    loop.add(fd, lambda: calls.append(1), eventfd=True)
    assert loop.run_until_idle(limit=100) == 1
    signal(fd)
    assert loop.run_until_idle(limit=100) == 1
    assert len(calls) == 2
    loop.close()
    os.close(fd)


def test_eventfd_at_its_highest_count_that_nobody_reads_keeps_no_loop_busy() -> None:
    """EPOLLERR can't be switched off: without a read it would be reported for ever."""
    fd, loop = os.eventfd(0, os.EFD_NONBLOCK), IoLoop("test")
    os.eventfd_write(fd, FULL)
    signal(fd)
    loop.add(fd, lambda: None, events=SIGNALLED)
    loop.modify(fd, UNWATCHED)
    assert loop.run_until_idle(limit=100) <= 1
    loop.close()
    os.close(fd)
