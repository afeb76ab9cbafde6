"""Disks over a back-end that takes notes of what is in flight: the next one does what the dead one owed, no more."""

import random
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import link as user_link
from acrn_dm.devices import virtio_blk
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import Completion, DriverQueue
from tests.backends.user.peers.disk import FLUSH, REGION_START, SECTOR, WRITE
from tests.backends.user.peers.inflight_region import notes_in, queue_bytes
from tests.backends.user.user_rig import IN, OUT, Daemon, DiskLoad, block_content, eventually, unanswered

ROOT = Path(__file__).parents[3]
IMAGE_BYTES = 8 * MIB
BLOCK = 16 << 10
DIED_S = 20.0


@attrs.define(eq=False)
class Disk:
    """A ``peers.disk`` program, one process after another."""

    folder: Path
    daemon: Daemon = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        with self.image.open("wb") as f:
            f.truncate(IMAGE_BYTES)
        self.daemon = Daemon([], self.folder / "blk.sock", self.folder / "log")

    @property
    def image(self) -> Path:
        return self.folder / "image"

    @property
    def region(self) -> Path:
        return self.folder / "region"

    def start(self, *options: object, wait: bool = True) -> None:
        """Start a process with these *options*."""
        program = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.backends.user.peers.disk"]
        paths = [self.daemon.socket, self.image, self.region]
        self.daemon.argv = [*program, *map(str, paths), *map(str, options)]
        self.daemon.start(wait=wait)

    def noted(self, queue: int = 0) -> list[int]:
        """What the region that was made last says is in flight, oldest first."""
        with notes_in(self.region, REGION_START) as first:
            entries = first.entries
        with notes_in(self.region, REGION_START + queue * queue_bytes(entries)) as notes:
            return list(notes.in_flight())

    def owed(self, queue: int = 0) -> list[list[int]]:
        """What the rings that were started so far had to do again, one list for each start."""
        return [heads for what, (index, *heads) in self._said() if (what, index) == ("owes", queue)]

    def done(self, queue: int = 0) -> list[tuple[int, int, int]]:
        """Head, type and sector of the requests done since the last start, in their order."""
        done: list[tuple[int, int, int]] = []
        for what, (index, *rest) in self._said():
            if index == queue:
                done = [] if what == "owes" else [*done, (rest[0], rest[1], rest[2])]
        return done

    def _said(self) -> Iterator[tuple[str, list[int]]]:
        for line in self.daemon.log.read_text().splitlines():
            what, *numbers = line.split()
            assert what in ("owes", "does"), line
            yield what, [int(number) for number in numbers]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    try:
        yield disk
    finally:
        disk.daemon.kill()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimMachine]:
    monkeypatch.setattr(user_link, "TIME_LIMIT_S", 60.0)  # a busy machine may let a new process wait
    with SimMachine(memory=64 * MIB, plugins=[virtio_blk, vhost_user], vcpus=2) as machine:
        yield machine


def driver_of(machine: SimMachine, disk: Disk, queues: int = 1) -> VirtioDriver:
    machine.add("virtio-blk", f"mq={queues},vhost-user={disk.daemon.socket}", slot=3)
    driver = machine.driver(3)
    driver.start()
    return driver


def content(number: int) -> bytes:
    return struct.pack("<I", number) * (SECTOR // 4)


def write(queue: DriverQueue, numbers: Sequence[int]) -> None:
    """Send a request for each of the sectors *numbers*."""
    for number in numbers:
        queue.send([struct.pack("<IIQ", WRITE, 0, number), content(number)], [1])
    queue.kick()


def left_of(queue: DriverQueue) -> list[int]:
    """Heads of the requests that are not in the used ring, oldest first."""
    return unanswered(queue.ring, queue._sent)


def collect(queue: DriverQueue, done: list[Completion]) -> bool:
    """Add what has come back to *done*; always true."""
    done += queue.completed()
    return True


def all_answers(machine: SimMachine, queue: DriverQueue) -> list[Completion]:
    """Wait until nothing is in flight."""
    done: list[Completion] = []
    eventually(machine, lambda: collect(queue, done) and not queue.in_flight)
    assert all(completion.data[-1:] == b"\0" for completion in done)
    return done


@pytest.mark.stress
@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "busy"])
def test_what_was_written_is_read_however_often_the_backend_is_killed(
    disk: Disk, machine: SimMachine, stuck: bool
) -> None:
    """*stuck*: each process stops working after some requests and is killed with all the others in flight; otherwise it
    is killed amidst its work.
    """
    blocks = list(range(IMAGE_BYTES // BLOCK))
    kills = 8
    lifetime = 2 * len(blocks) // (kills + 1)
    options = ("--limit", lifetime) if stuck else ("--latency", 0.0005)
    disk.start(*options)
    driver = driver_of(machine, disk)
    expected: list[list[int]] = []

    def kill_now_and_then(completed: int) -> None:
        if len(expected) == kills or completed < (len(expected) + 1) * lifetime:
            return
        if stuck:
            if len(load.in_flight()) < load.depth // 2:
                return
            eventually(machine, lambda: disk.noted() == load.in_flight())
        elif len(disk.noted()) < load.depth // 4:
            return
        disk.daemon.kill()
        expected.append(load.in_flight())
        disk.start(*(options if len(expected) < kills else ()), wait=False)

    load = DiskLoad(machine, driver, BLOCK, on_progress=kill_now_and_then)
    wanted = block_content(1, BLOCK)
    random.Random(2).shuffle(blocks)
    load.run(OUT, blocks, wanted)
    random.Random(3).shuffle(blocks)
    load.run(IN, blocks, wanted)
    owed = disk.owed()[1:]
    assert len(owed) == kills
    assert all(owed)
    for again, sent in zip(owed, expected, strict=True):
        assert again == (sent if stuck else sent[: len(again)])  # a busy one may not have seen the latest
    assert driver.queue(0).ring.used_idx() == 2 * len(blocks) & 0xFFFF
    assert machine.failures == []


def test_requests_are_done_again_in_the_order_in_which_they_were_taken(disk: Disk, machine: SimMachine) -> None:
    disk.start("--gather", 12, "--limit", 8)
    queue = driver_of(machine, disk).queue(0)
    write(queue, range(12))
    first: list[Completion] = []
    eventually(machine, lambda: collect(queue, first) and len(first) == 8)
    write(queue, range(12, 20))  # with descriptors that came back in any order
    owed = left_of(queue)
    assert owed != sorted(owed)
    eventually(machine, lambda: disk.noted() == owed)
    disk.daemon.kill()
    disk.start()
    second = all_answers(machine, queue)
    assert disk.owed() == [[], owed]
    assert [head for head, _, _ in disk.done()] == owed
    assert sorted(completion.token for completion in first + second) == list(range(20))
    assert disk.image.read_bytes()[: 20 * SECTOR] == b"".join(map(content, range(20)))
    assert machine.failures == []


@pytest.mark.parametrize("step", ["linked", "used", "half-cleared", "cleared", "noted"])
def test_batch_amidst_which_the_backend_dies_is_returned_once(disk: Disk, machine: SimMachine, step: str) -> None:
    disk.start("--gather", 8, "--batch", 3, "--limit", 6, "--die", step)
    queue = driver_of(machine, disk).queue(0)
    write(queue, range(8))
    assert disk.daemon.process is not None
    disk.daemon.process.wait(DIED_S)
    owed = left_of(queue)
    assert len(owed) == (5 if step == "linked" else 2)
    disk.daemon.kill()
    disk.start()
    answers = all_answers(machine, queue)
    assert disk.owed() == [[], owed]
    assert [head for head, _, _ in disk.done()] == owed
    assert sorted(completion.token for completion in answers) == list(range(8))
    assert queue.ring.used_idx() == 8
    assert disk.image.read_bytes()[: 8 * SECTOR] == b"".join(map(content, range(8)))
    assert machine.failures == []


def test_flush_sent_while_nobody_is_there_is_done_behind_what_was_in_flight(disk: Disk, machine: SimMachine) -> None:
    disk.start("--gather", 8, "--limit", 3)
    queue = driver_of(machine, disk).queue(0)
    write(queue, range(8))
    eventually(machine, lambda: disk.noted() == left_of(queue) and len(disk.noted()) == 5)
    owed = disk.noted()
    disk.daemon.kill()
    answers = queue.completed()
    assert len(answers) == 3
    flush = queue.send([struct.pack("<IIQ", FLUSH, 0, 0)], [1])
    queue.kick()
    machine.settle()
    assert queue.completed() == []
    disk.start()
    answers += all_answers(machine, queue)
    assert sorted(completion.token for completion in answers) == [*range(8), flush]
    done = disk.done()
    assert [head for head, _, _ in done[:5]] == owed
    assert [kind for _, kind, _ in done] == [*[WRITE] * 5, FLUSH]
    assert disk.image.read_bytes()[: 8 * SECTOR] == b"".join(map(content, range(8)))
    assert machine.failures == []


def test_each_queue_has_notes_of_its_own(disk: Disk, machine: SimMachine) -> None:
    disk.start("--gather", 6, "--limit", 2, "--batch", 2)
    driver = driver_of(machine, disk, queues=2)
    queues = [driver.queue(0), driver.queue(1)]
    write(queues[0], range(10))
    write(queues[1], range(10, 16))
    owed: list[list[int]] = []

    def stuck() -> bool:
        owed[:] = [left_of(queue) for queue in queues]
        return [len(heads) for heads in owed] == [8, 4] and [disk.noted(i) for i in (0, 1)] == owed

    eventually(machine, stuck)
    disk.daemon.kill()
    disk.start()
    answers = [all_answers(machine, queue) for queue in queues]
    assert [disk.owed(i) for i in (0, 1)] == [[[], owed[0]], [[], owed[1]]]
    assert [sorted(c.token for c in done) for done in answers] == [list(range(10)), list(range(6))]
    assert disk.image.read_bytes()[: 16 * SECTOR] == b"".join(map(content, range(16)))
    assert machine.failures == []


@pytest.mark.parametrize("alive", [True, False])
def test_next_driver_has_nothing_to_do_with_the_notes_about_the_last(
    disk: Disk, machine: SimMachine, alive: bool
) -> None:
    """*alive*: the back-end sees the first driver go, and finishes its requests; otherwise nobody does."""
    disk.start("--gather", 8, "--limit", 3)
    driver = driver_of(machine, disk)
    write(driver.queue(0), range(8))
    eventually(machine, lambda: len(disk.noted()) == 5)
    if not alive:
        disk.daemon.kill()
        machine.settle()
    driver.reset()
    before = disk.image.read_bytes()
    assert (before[: 8 * SECTOR] == b"".join(map(content, range(8)))) == alive
    driver.start()
    if not alive:
        disk.start("--gather", 8, "--limit", 3)
    queue = driver.queue(0)
    write(queue, range(100, 108))
    eventually(machine, lambda: len(left_of(queue)) == 5 and disk.noted() == left_of(queue))
    owed = left_of(queue)
    disk.daemon.kill()
    disk.start()
    answers = all_answers(machine, queue)
    assert disk.owed() == [[], [], owed]
    assert sorted(completion.token for completion in answers) == list(range(8))
    after = disk.image.read_bytes()
    assert after[: 100 * SECTOR] == before[: 100 * SECTOR]
    assert after[100 * SECTOR : 108 * SECTOR] == b"".join(map(content, range(100, 108)))
    assert machine.failures == []
