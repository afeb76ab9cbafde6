"""The bench: what a rule is given, and how it waits, counts interrupts and has a device rest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from acrn_dm._fastring import Chain
from acrn_dm.testing.conformance import Bench, NotApplicable, Setup, Subject
from acrn_dm.testing.conformance.bench import bench
from acrn_dm.testing.conformance.probes import BOTH, WRITABLE
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.samples import Echo, Keeping, Make, build


@contextmanager
def on(make: Make, **setup: object) -> Iterator[Bench]:
    """A bench with a device of class *make*."""
    subject = Subject(build=build(make))
    subject.look()
    with bench(subject, Setup(**setup)) as made:  # type: ignore[arg-type]
        yield made


class OneQueue(Echo):
    """Serves its second queue, and on that only what can be written."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            if queue.index == 1 and not chain.readable_bytes:
                chain.write(bytes(8))
                queue.push(chain)


class Threaded(Echo):
    """Hands its chains to a helper thread."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            threading.Timer(0.02, self.done, (queue, chain)).start()

    def done(self, queue: Queue, chain: Chain) -> None:
        queue.loop.call_soon(lambda: self.give(queue, chain))

    def give(self, queue: Queue, chain: Chain) -> None:
        chain.write(b"late")
        queue.push(chain)
        queue.flush()


def test_answers_are_what_each_queue_returns_by_itself() -> None:
    with on(Echo) as made:
        assert made.answers == {0: BOTH, 1: BOTH}
    with on(OneQueue) as made:
        assert made.answers == {1: WRITABLE}
    with on(Keeping) as made:
        assert made.answers == {}


def test_device_without_an_answer_leaves_nothing_to_judge() -> None:
    with on(Keeping) as made, pytest.raises(NotApplicable, match="no queue returns"):
        made.answering(made.start())


def test_chain_that_a_helper_thread_returns_is_waited_for() -> None:
    with on(Threaded) as made:
        done = made.exchange(made.start().queue(0), BOTH)
    assert done.written == 4


def test_chain_that_nobody_can_return_any_more_is_not_waited_for() -> None:
    with on(Keeping) as made:
        queue = made.start().queue(0)
        queue.send(BOTH.out, BOTH.in_)
        queue.kick()
        assert made.collect(queue, 1, limit_s=60.0) == []


@pytest.mark.parametrize("interrupts", ["msix", "msi", "intx"])
@pytest.mark.parametrize("transport", ["modern", "legacy"])
def test_interrupts_are_counted_whatever_the_way(transport: str, interrupts: str) -> None:
    with on(Echo, transport=transport, interrupts=interrupts) as made:
        driver = made.start()
        assert made.notified(driver) == 0
        made.exchange(driver.queue(0), BOTH)
        assert [made.notified(driver), made.notified(driver)] == [1, 0]


def test_paused_device_takes_nothing_and_goes_on_where_it_was() -> None:
    with on(Echo) as made:
        queue = made.start().queue(0)
        made.pause()
        queue.send(BOTH.out, BOTH.in_)
        queue.kick(force=True)
        assert made.collect(queue, 1) == []
        made.resume()
        assert len(made.collect(queue, 1)) == 1
