"""The worker threads of a disk, without a disk."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.virtio_blk.engine.workers import WorkerPool


class Job:
    """Executed once ``gate`` is open."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.thread = ""


def execute(job: Job) -> None:
    assert job.gate.wait(30)
    job.thread = threading.current_thread().name


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    loop = IoLoop("io")
    yield loop
    loop.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_jobs_run_on_threads_and_end_on_the_loop(loop: IoLoop, gate: threading.Event) -> None:
    done: list[Job] = []
    pool = WorkerPool("w", loop, execute, done.extend, limit=2)
    gate.set()
    for _ in range(5):
        pool.submit(Job(gate))
    assert loop.in_flight == 5
    loop.run_until_idle()
    assert loop.in_flight == 0
    assert {job.thread for job in done} <= {"w-0", "w-1"}
    assert len(done) == 5
    pool.close()


def test_results_that_are_ready_together_end_together(loop: IoLoop, gate: threading.Event) -> None:
    batches: list[int] = []
    pool: WorkerPool[Job] = WorkerPool("w", loop, execute, lambda jobs: batches.append(len(jobs)), limit=3)
    for _ in range(3):
        pool.submit(Job(gate))
    gate.set()
    with pool._changed:
        assert pool._changed.wait_for(lambda: pool._unfinished == 0, 30)
    loop.run_until_idle()
    assert batches == [3]
    pool.close()


def test_drain_waits_and_hands_over_what_was_not_collected(loop: IoLoop, gate: threading.Event) -> None:
    done: list[Job] = []
    pool = WorkerPool("w", loop, execute, done.extend)
    job = Job(gate)
    pool.submit(job)
    threading.Timer(0.02, gate.set).start()
    assert pool.drain() == [job]
    assert gate.is_set()
    loop.run_until_idle()
    assert (done, loop.in_flight) == ([], 0)
    pool.close()


def test_drain_that_takes_too_long_gives_the_pool_up(loop: IoLoop, gate: threading.Event) -> None:
    pool: WorkerPool[Job] = WorkerPool("w", loop, execute, lambda jobs: None)
    pool.submit(Job(gate))
    with pytest.raises(HostError, match="stuck"):
        pool.drain(0.01)
    assert pool.busy
    pool.close()


class Begun(Job):
    """Says when a thread has it."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(gate)
        self.begun = threading.Event()


def execute_begun(job: Begun) -> None:
    job.begun.set()
    execute(job)


def test_cancelled_pool_drops_what_no_thread_has_begun_and_every_result(loop: IoLoop, gate: threading.Event) -> None:
    done: list[Begun] = []
    pool = WorkerPool("w", loop, execute_begun, done.extend, limit=1)
    jobs = [Begun(gate) for _ in range(5)]
    for job in jobs:
        pool.submit(job)
    assert jobs[0].begun.wait(30)
    threads = list(pool._threads)
    pool.cancel()
    assert pool.busy
    pool.close()
    gate.set()
    for thread in threads:
        thread.join(30)
    loop.run_until_idle()
    assert (done, pool.busy, loop.in_flight) == ([], False, 0)
    assert [job.begun.is_set() for job in jobs] == [True, False, False, False, False]


def test_result_that_was_ready_when_the_pool_was_given_up_is_dropped(loop: IoLoop, gate: threading.Event) -> None:
    done: list[Job] = []
    pool = WorkerPool("w", loop, execute, done.extend)
    gate.set()
    pool.submit(Job(gate))
    with pool._changed:
        assert pool._changed.wait_for(lambda: pool._unfinished == 0, 30)
    pool.cancel()
    loop.run_until_idle()
    assert (done, pool.busy, loop.in_flight) == ([], False, 0)
    pool.close()


def test_wanted_action_is_done_until_the_pool_is_given_up(loop: IoLoop) -> None:
    pool: WorkerPool[Job] = WorkerPool("w", loop, execute, lambda jobs: None)
    done: list[str] = []
    assert pool.still_wanted(lambda: done.append("before"))
    pool.cancel()
    assert not pool.still_wanted(lambda: done.append("after"))
    assert done == ["before"]


def test_drained_pool_refers_to_no_job(loop: IoLoop, gate: threading.Event) -> None:
    pool: WorkerPool[Job] = WorkerPool("w", loop, execute, lambda jobs: None)
    job = Job(gate)
    gone = weakref.ref(job)
    gate.set()
    pool.submit(job)
    del job
    pool.drain()
    gc.collect()
    assert gone() is None
    pool.close()


def test_closed_pool_has_no_threads(loop: IoLoop, gate: threading.Event) -> None:
    pool: WorkerPool[Job] = WorkerPool("gone", loop, execute, lambda jobs: None)
    gate.set()
    for _ in range(4):
        pool.submit(Job(gate))
    pool.drain()
    pool.close()
    assert not any(t.name.startswith("gone") for t in threading.enumerate())
