"""A device's life as a whole: what it raises, loses or leaves behind, where no row of the specification says it."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.rule import rule


@rule("dm.lost_chain")
def returns_something(bench: Bench) -> None:
    """Of all queues and probes one at least comes back. A device that keeps all it is given, until something happens
    outside, lists the reason.
    """
    assert bench.answers, f"no chain of any shape came back from any of {len(bench.queues(bench.driver()))} queues"


@rule("dm.double_push", over=("transport", "pairs"))
def returns_each_chain_once(bench: Bench) -> None:
    """A driver whose descriptor comes back twice frees memory twice."""
    driver = bench.start()
    for queue, shape in bench.answering(driver):
        sent = [queue.send(shape.out, shape.in_) for _ in range(3)]
        queue.kick()
        came = [done.token for done in bench.collect(queue, 3)]
        assert sorted(came) == sent, f"queue {queue.index}: sent {sent}, got back {came}"
