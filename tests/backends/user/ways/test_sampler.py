"""The thread that looks at rings: when it looks, when it sleeps, and that it takes nothing from anybody."""

import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.backends.user.native._sampler import Sampler
from acrn_dm.ring.driver import DriverRing
from acrn_dm.ring.layout import USED_F_NO_NOTIFY, RingLayout
from acrn_dm.ring.native.tally._tally import RingTally
from tests.patience import comes_true

SIZE = 64


@attrs.define(eq=False)
class Scene:
    """A driver whose ring is looked at, by a thread that runs until the end."""

    memory: MemoryMap
    driver: DriverRing
    kick_fd: int
    tally: RingTally
    sampler: Sampler
    thread: threading.Thread

    @classmethod
    def make(cls, *, event_idx: bool = False, flags: int = 0) -> "Scene":
        memory = MemoryMap([(0, mmap.mmap(-1, 0x1_0000))])
        layout = RingLayout.at(0x1000, SIZE, 4)
        driver = DriverRing(memory, layout, event_idx=event_idx)
        driver._set_u16(layout.used_flags_at, flags)
        tally = RingTally(memory, size=SIZE, avail=layout.avail, used=layout.used, event_idx=event_idx)
        kick_fd = os.eventfd(0, os.EFD_NONBLOCK)
        sampler = Sampler([(tally, kick_fd)])
        thread = threading.Thread(target=sampler.run, daemon=True)
        thread.start()
        return cls(memory, driver, kick_fd, tally, sampler, thread)

    def send(self) -> int:
        """Make a chain available and kick; its head."""
        head = self.driver.add_chain([(0x8000, 16)])
        self.driver.publish()
        os.eventfd_write(self.kick_fd, 1)
        return head

    def end(self) -> None:
        self.sampler.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.sampler.close()

    def dozes(self) -> bool:
        """It waits for a kick, by and by."""
        before = self.sampler.dozes
        return comes_true(lambda: self.sampler.dozes > before + 1)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene.make()
    yield scene
    scene.end()
    os.close(scene.kick_fd)


def test_ring_that_does_not_move_is_looked_at_when_it_is_kicked(scene: Scene) -> None:
    assert scene.dozes()
    head = scene.send()
    assert comes_true(lambda: scene.tally.in_flight() == [head])
    assert comes_true(lambda: scene.sampler.kicks == 1)


def test_kick_stays_for_whom_it_is_meant(scene: Scene) -> None:
    assert scene.dozes()
    scene.send()
    assert comes_true(lambda: len(scene.tally.in_flight()) == 1)
    assert os.eventfd_read(scene.kick_fd) == 1


def test_kick_that_nobody_reads_wakes_it_once(scene: Scene) -> None:
    assert scene.dozes()
    scene.send()
    assert comes_true(lambda: scene.sampler.kicks == 1)
    assert scene.dozes()
    assert scene.dozes()
    assert scene.sampler.kicks == 1


def listeners(fd: int) -> int:
    """How many epolls of this process are told by *fd*."""
    told = [word.read_text() for word in Path("/proc/self/fdinfo").iterdir() if word.exists()]
    return sum(line.split()[1] == str(fd) for text in told for line in text.splitlines() if line.startswith("tfd:"))


def test_driver_pays_for_telling_kicks_only_while_they_are_waited_for(scene: Scene) -> None:
    assert scene.dozes()
    assert listeners(scene.kick_fd) == 1
    scene.driver._set_u16(scene.driver.layout.used_flags_at, USED_F_NO_NOTIFY)
    scene.send()
    assert comes_true(lambda: listeners(scene.kick_fd) == 0)
    scene.driver._set_u16(scene.driver.layout.used_flags_at, 0)
    assert scene.dozes()
    scene.send()
    assert comes_true(lambda: scene.sampler.kicks == 2)


def test_chain_in_flight_lets_it_sleep(scene: Scene) -> None:
    """It may be in flight for hours; what comes back meanwhile stays readable until more is sent."""
    scene.send()
    assert comes_true(lambda: len(scene.tally.in_flight()) == 1)
    assert scene.dozes()


def test_while_it_sleeps_it_looks_now_and_then_at_rings_of_which_nobody_tells(scene: Scene) -> None:
    assert scene.dozes()
    head = scene.driver.add_chain([(0x8000, 16)])
    scene.driver.publish()
    assert comes_true(lambda: scene.tally.in_flight() == [head])


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_backend_that_wants_no_kicks_is_looked_after_by_a_timer(event_idx: bool) -> None:
    scene = Scene.make(event_idx=event_idx, flags=USED_F_NO_NOTIFY)
    if event_idx:
        scene.driver._set_u16(scene.driver.layout.avail_event_at, 0x8000)
    assert comes_true(lambda: scene.sampler.samples > 100)
    assert scene.sampler.dozes <= (1 if event_idx else 0)  # the field was written when it had begun
    scene.end()


def test_last_look_is_at_the_end(scene: Scene) -> None:
    assert scene.dozes()
    head = scene.driver.add_chain([(0x8000, 16)])
    scene.driver.publish()
    scene.end()
    assert scene.tally.in_flight() == [head]


def test_it_can_be_stopped_before_it_runs() -> None:
    sampler = Sampler([])
    sampler.stop()
    thread = threading.Thread(target=sampler.run)  # which comes first from then on
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    sampler.close()
    sampler.close()


def test_eventfd_that_is_none_is_refused() -> None:
    memory = MemoryMap([(0, mmap.mmap(-1, 0x1_0000))])
    tally = RingTally(memory, size=SIZE, avail=0x1000, used=0x2000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Sampler([(tally, 1 << 20)])
