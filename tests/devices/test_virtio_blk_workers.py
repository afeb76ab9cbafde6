"""The worker threads of a disk, without a disk."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from acrn_dm.devices.virtio_blk.workers import WorkerPool
from acrn_dm.ioloop import IoLoop


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
