"""Rules of balloons: each is broken by a balloon that breaks it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acrn_dm_balloon.device import BalloonDevice
from acrn_dm_balloon.pages import Pages
from acrn_dm_balloon.stats import Statistics

from acrn_dm.virtio.device import VirtioDevice
from tests.testing.conformance.kinds import packages
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.paper import Paper

Make = Callable[[Any], Any]
Fault = tuple[type, str, Make]


pytestmark = pytest.mark.stress  # a hundred machines


@pytest.fixture
def world() -> Iterator[packages.Host]:
    made = packages.Host()
    yield made
    made.close()


def _always(value: Any) -> Make:
    return lambda was: lambda *args, **kwargs: value


BALLOON: dict[str, Fault] = {
    "d.bal.ack": (BalloonDevice, "_deflate", _always(None)),
    "d.bal.pfn": (Pages, "discard_numbers", lambda was: lambda self, numbers: was(self, [n + 1 for n in numbers])),
    "d.bal.cfg": (BalloonDevice, "write_config", _always(None)),
    "d.bal.num_pages_notify": (VirtioDevice, "config_changed", _always(None)),
    "d.bal.stats_flow": (BalloonDevice, "_ask_for_stats", _always(None)),
    "balloon.stats.unknown_tag": (Statistics, "take", _always(None)),
    "balloon.stats.any_order": (Statistics, "take", lambda was: lambda self, data: was(self, data[:10])),
    "d.bal.report_ack": (BalloonDevice, "_report", _always(None)),
}


@pytest.mark.parametrize("row", BALLOON)
def test_balloon_that_breaks_a_rule_fails_its_row(
    row: str, world: packages.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, make = BALLOON[row]
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))
    assert judged(world.build, row, outside=world, plugins=world.plugins).failures


LEGACY = {"balloon.legacy.actual_msb", "balloon.legacy.use_before_notify", "balloon.legacy.stats_first"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("balloon.legacy.actual_msb", (BalloonDevice, "write_config", _always(None))),
        ("balloon.legacy.use_before_notify", (BalloonDevice, "_deflate", BalloonDevice._inflate)),
        ("balloon.legacy.stats_first", (BalloonDevice, "_take_stats", None)),
        ("balloon.report.poison", (BalloonDevice, "_report", None)),
    ],
)
def test_balloon_that_breaks_a_rule_of_legacy_drivers_or_poison_fails_its_row(
    row: str, fault: tuple[type, str, Any], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, method = fault
    was = getattr(owner, name)

    def eager(self: BalloonDevice, queue: Any, chain: Any) -> None:
        self._first_stats, self._features = False, 0
        was(self, queue, chain)

    monkeypatch.setattr(owner, name, eager if method is None else method(None) if name == "write_config" else method)
    assert judged(world.build, row, outside=world, plugins=world.plugins).failures


PAPERS = {
    "balloon.fph.stop": Paper(kind=5, features=1 << 3, queues=5, size=16, config={8: b"\7"}),
    "balloon.legacy.must_tell_host": Paper(kind=5, features=1, queues=2, size=8),
}


@pytest.mark.parametrize("row", PAPERS)
def test_balloon_that_shows_the_wrong_thing_fails_its_row(row: str) -> None:
    assert judged(PAPERS[row].build, row).failures


def test_balloon_that_takes_hints_of_another_command_fails_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = BalloonDevice.features.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(BalloonDevice, "features", property(lambda self: offered(self) | 1 << 3))
    handle = BalloonDevice.handle_queue

    def takes(self: BalloonDevice, queue: Any) -> None:
        if queue.index != 3:
            handle(self, queue)
            return
        for chain in queue.pop_batch():
            self._features = 0
            self._report(queue, chain)

    monkeypatch.setattr(BalloonDevice, "handle_queue", takes)
    world = packages.Host()
    assert judged(world.build, "balloon.fph.ignore_mismatch", outside=world, plugins=world.plugins).failures
    world.close()


def test_every_row_has_a_fault() -> None:
    apart = {"balloon.report.poison", "balloon.fph.ignore_mismatch", *LEGACY, *PAPERS}
    assert set(rows_of("balloon")) == {*BALLOON} | apart
