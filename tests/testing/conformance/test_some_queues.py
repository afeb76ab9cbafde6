"""The rule that a driver enables what it needs: a device that can not do with that says so, on purpose and at once."""

from collections.abc import Sequence

import pytest

from acrn_dm import GuestError
from acrn_dm.testing.conformance import Outcome, conform
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.samples import Echo, build, rule_of


class Whole(Echo):
    """A device that needs both of its queues."""

    error: type[Exception] = GuestError

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        if len(queues) < len(self.queue_sizes):
            raise self.error("both")


class Stumbling(Whole):
    """A device that finds out by accident."""

    error = IndexError


class HalfSilent(Whole):
    """A device that needs both, and answers on one."""

    def handle_queue(self, queue: Queue) -> None:
        if queue.index == 0:
            super().handle_queue(queue)


class Deaf(Echo):
    """A device that does nothing where a queue is missing, and says nothing."""

    whole = False

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        self.whole = len(queues) == len(self.queue_sizes)

    def handle_queue(self, queue: Queue) -> None:
        if self.whole:
            super().handle_queue(queue)


def verdict(make: type[Echo], row: str) -> Outcome:
    report = conform(build(make), rules=[rule_of(row)])
    return next(found.outcome for found in report.verdicts if found.row.id == row)


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (Echo, Outcome.PASSED),
        (Whole, Outcome.NOT_APPLICABLE),
        (Stumbling, Outcome.FAILED),
        (Deaf, Outcome.FAILED),
    ],
)
def test_device_serves_some_of_its_queues_or_refuses_them(make: type[Echo], outcome: Outcome) -> None:
    assert verdict(make, "dm.some_queues") == outcome


@pytest.mark.parametrize("row", ["d.split.size", "d.split.align", "d.split.event_pos"])
def test_rule_about_one_queue_sets_up_the_others(row: str) -> None:
    assert verdict(HalfSilent, row) == Outcome.PASSED
