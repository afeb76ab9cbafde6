"""Rules of entropy devices: the package keeps them all, and each is broken by a device that breaks it."""

from collections.abc import Callable
from typing import Any

import acrn_dm_rng
import pytest

from acrn_dm.testing.conformance import SLOT, Outcome, conform, kinds
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.paper import Paper


def test_package_keeps_every_rule() -> None:
    report = conform(lambda machine: machine.add("virtio-rnd", slot=SLOT), plugins=[acrn_dm_rng], rules=kinds.RULES)
    assert report.failed == [], report.text()
    assert set(rows_of("entropy")) <= {verdict.row.id for verdict in report.having(Outcome.PASSED)}


def _serving(fill: Callable[[Any], int]) -> Callable[[Queue], None]:
    def serve(queue: Queue) -> None:
        for chain in queue.pop_batch():
            queue.push(chain, fill(chain))

    return serve


def _nothing(chain: Any) -> int:
    return 0


def _constant(chain: Any) -> int:
    return int(chain.write(b"\x5f" * chain.writable_bytes))


def _more_than_it_says(chain: Any) -> int:
    return int(chain.write(bytes(range(1, 200)))) // 2


FAULTS = {"rng.at_least_one": _nothing, "d.rng.fill": _constant, "rng.partial": _more_than_it_says}


@pytest.mark.parametrize("row", FAULTS)
def test_device_that_breaks_a_rule_fails_its_row(row: str) -> None:
    paper = Paper(kind=4, queues=1, serve=_serving(FAULTS[row]))
    assert judged(paper.build, row).failures


def test_every_row_has_a_fault() -> None:
    assert set(rows_of("entropy")) == set(FAULTS)
