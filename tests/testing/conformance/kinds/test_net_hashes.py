"""Rules of hash reports and receive-side scaling: each is broken by a card that breaks it."""

from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.devices.virtio_net import receive
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.pair import Pair
from acrn_dm.devices.virtio_net.request import REPORT
from acrn_dm.devices.virtio_net.steering import parameters
from acrn_dm.testing.conformance import Outcome, conform
from acrn_dm.testing.conformance.kinds.net import hashes
from acrn_dm.testing.conformance.outside.tap import TapNetwork
from acrn_dm.testing.conformance.rule import rules_of
from tests.testing.conformance.kinds.judging import judged

pytestmark = pytest.mark.stress
BOTH, REPORTS = "tap=t0,mq=3,rss,hash", "tap=t0,mq=2,hash"


@pytest.mark.parametrize(("options", "decided"), [(BOTH, 10), (REPORTS, 6), ("tap=t0,rss", 1)])
def test_card_keeps_the_rules(options: str, decided: int) -> None:
    network = TapNetwork(options)
    report = conform(network.build, outside=network, rules=rules_of(hashes))
    assert report.failed == [], report.text()
    assert len(report.having(Outcome.PASSED)) == decided


class _StaleReport:
    @staticmethod
    def pack_into(buffer: Any, at: int, value: int, report: int, padding: int) -> None:
        REPORT.pack_into(buffer, at, value, report or 2, padding)


def _refuse(self: NetDevice, data: bytes) -> bool:
    return False


def _remembers(was: Any) -> Any:
    def reset(self: NetDevice) -> None:
        kept = self._hashes
        was(self)
        self._hashes = kept

    return reset


def _changed(change: Callable[..., Any]) -> Callable[[Any], Any]:
    def make(was: Any) -> Any:
        return lambda data, at, table=(), unclassified=0: was(*change(data, at, table, unclassified))

    return make


def _elsewhere(was: Any) -> Any:
    def take_in(self: Pair, packet: bytes) -> None:
        there = self if self.rx is not None else next(pair for pair in self._peers if pair.rx is not None)
        was(there, packet)

    return take_in


def _without_tcp(data: bytes, *rest: Any) -> tuple[Any, ...]:
    return (bytes([data[0] & ~0x12]) + data[1:], *rest)


FAULTS: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "d.net.hash.initial": (BOTH, NetDevice, "reset", _remembers),
    "net.hash.report_needs_cmd": (BOTH, NetDevice, "_steer", lambda was: _refuse),
    "net.hash.hash_config_cmd": (REPORTS, NetDevice, "_report", lambda was: _refuse),
    "net.hash.config_cmd": (BOTH, NetDevice, "_report", lambda was: _refuse),
    "d.net.hash.select": (BOTH, parameters, "_hashes", _changed(_without_tcp)),
    "d.net.rx.hash_none": (BOTH, receive, "REPORT", lambda was: _StaleReport),
    "net.hash.rss_config_cmd": (BOTH, NetDevice, "_steer", lambda was: _refuse),
    "net.rss.hash": (BOTH, parameters, "_hashes", _changed(lambda data, *rest: (data[:-1] + b"\xff", *rest))),
    "net.rss.indirection": (
        BOTH,
        parameters,
        "_hashes",
        _changed(lambda data, at, table, n: (data, at, table[::-1], n)),
    ),
    "net.rss.unclassified": (BOTH, parameters, "_hashes", _changed(lambda data, at, table, n: (data, at, table, 0))),
    "net.rss.reset_drop": (BOTH, Pair, "take_in", _elsewhere),
}


@pytest.mark.parametrize("row", FAULTS)
def test_card_that_breaks_a_rule_fails_its_row(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, where, name, make = FAULTS[row]
    monkeypatch.setattr(where, name, make(getattr(where, name)))
    network = TapNetwork(options)
    assert judged(network.build, row, outside=network).failures
