"""The relay of a queue's call to the eventfd of its client."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.export.vfio_user._calls import CallRelay, Signaller
from tests.export.vfio_user.vfio_rig import count


@pytest.fixture
def fds() -> Iterator[tuple[int, int]]:
    """The call, and the client's."""
    source, target = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
    yield source, target
    os.close(source)
    os.close(target)


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    with contextlib.closing(IoLoop("calls")) as it:
        yield it


def test_calls_are_passed_on_those_before_it_is_watched_too(fds: tuple[int, int], loop: IoLoop) -> None:
    source, target = fds
    relay = CallRelay(Signaller(), source, target)
    os.eventfd_write(source, 3)
    relay.watch(loop.poll)
    loop.run_until_idle()
    assert (count(source), count(target), relay.passed) == (0, 1, 1)
    os.eventfd_write(source, 1)
    loop.run_until_idle()
    assert (count(target), relay.passed) == (1, 2)


def test_what_was_written_before_the_end_is_passed_on_and_nothing_behind_it(fds: tuple[int, int], loop: IoLoop) -> None:
    source, target = fds
    relay = CallRelay(Signaller(), source, target)
    relay.watch(loop.poll)
    os.eventfd_write(source, 1)
    relay.end()
    assert (count(source), count(target)) == (0, 1)
    os.eventfd_write(source, 1)
    loop.run_until_idle()
    assert (count(source), count(target)) == (1, 0)
    relay.unwatch(loop.poll)


def test_relay_that_has_ended_is_not_watched_any_more(fds: tuple[int, int], loop: IoLoop) -> None:
    source, target = fds
    relay = CallRelay(Signaller(), source, target)
    relay.end()
    relay.watch(loop.poll)
    os.eventfd_write(source, 1)
    loop.run_until_idle()
    assert (count(source), count(target)) == (1, 0)
    relay.unwatch(loop.poll)


def test_descriptors_are_its_own_and_given_back(fds: tuple[int, int], loop: IoLoop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    source, target = fds
    signaller = Signaller()
    open_ = len(os.listdir("/proc/self/fd"))
    relays = [CallRelay(signaller, source, target) for _ in range(3)]
    assert len(os.listdir("/proc/self/fd")) == open_ + 6
    del relays, signaller
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        CallRelay(Signaller(), source, 1 << 20)
