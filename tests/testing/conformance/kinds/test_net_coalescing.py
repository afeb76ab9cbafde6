"""Rules of notification coalescing: each is broken by a card that breaks it."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.devices.virtio_net.coalescing import Coalescing
from acrn_dm.testing.conformance import Outcome, conform
from acrn_dm.testing.conformance.kinds.net import coalescing
from acrn_dm.testing.conformance.outside.tap import TapNetwork
from acrn_dm.testing.conformance.rule import rules_of
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.kinds.judging import judged

pytestmark = pytest.mark.stress


def test_card_keeps_the_rules() -> None:
    network = TapNetwork("tap=t0,mq=2")
    report = conform(network.build, outside=network, rules=rules_of(coalescing))
    assert report.failed == [], report.text()
    assert len(report.having(Outcome.PASSED)) == 11


FAULTS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "net.coal.reserved": (
        Coalescing,
        "set_one",
        lambda was: lambda self, data: data[2:4] == b"\0\0" and was(self, data),
    ),
    "net.coal.txrx_err": (Coalescing, "set_all", lambda was: lambda self, kind, data: True),
    "net.coal.vq_set_err": (Coalescing, "set_one", lambda was: lambda self, data: True),
    "net.coal.vq_disabled_err": (Coalescing, "set_one", lambda was: lambda self, data: was(self, data) or True),
    "net.coal.tx_reenable": (Coalescing, "release", lambda was: lambda self, index: self._queues.pop(index, None)),
    "net.coal.rx_reenable": (Coalescing, "release", lambda was: lambda self, index: self._queues.pop(index, None)),
    "net.coal.respect_suppression": (Queue, "flush", lambda was: lambda self: (was(self), self.call())),
    "net.coal.reset_zero": (Coalescing, "reset", lambda was: lambda self: None),
    "d.net.coal.cond": (Queue, "hold", lambda was: lambda self: None),
    "d.net.coal.change": (
        Queue,
        "coalesce",
        lambda was: lambda self, *limits: self.coalescer.set(*limits, self.counters),
    ),
    "d.net.coal.last_wins": (
        Coalescing,
        "set_all",
        lambda was: lambda self, kind, data: self.of_all.update({kind: struct.unpack("<II", data)}) or True,
    ),
}


@pytest.mark.parametrize("row", FAULTS)
def test_card_that_breaks_a_rule_fails_its_row(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, make = FAULTS[row]
    monkeypatch.setattr(where, name, make(getattr(where, name)))
    network = TapNetwork("tap=t0,mq=2")
    assert judged(network.build, row, outside=network).failures
