"""The demands of a rule of a device kind: features that go together, a world outside."""

from collections.abc import Mapping
from typing import TypeVar

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.outside.world import Outside
from acrn_dm.testing.conformance.rule import NotApplicable
from acrn_dm.testing.driver import VERSION_1, VirtioDriver
from acrn_dm.virtio import features as names

World = TypeVar("World", bound=Outside)
Requires = Mapping[int, tuple[int, ...]]  # feature bit -> masks; of each mask one bit at least has to be there
NOTHING_REQUIRED: Requires = {}


def world(bench: Bench, kind: type[World]) -> World:
    """What stands beyond the device. Raises NotApplicable where the caller gave nothing of that kind."""
    if not isinstance(bench.outside, kind):
        raise NotApplicable(f"no outside given ({kind.__name__})")
    return bench.outside


def offers(bench: Bench, mask: int) -> None:
    """Nothing, where all of *mask* is offered. Raises NotApplicable, with the names of what is not."""
    if missing := mask & ~bench.offered:
        raise NotApplicable(f"not offered: {', '.join(names.names(bench.device_id, missing))}")


def pruned(features: int, requires: Requires) -> int:
    """*features* without those whose requirements are not in it."""
    while broken := sum(
        1 << bit for bit, masks in requires.items() if features >> bit & 1 and not all(features & m for m in masks)
    ):
        features &= ~broken
    return features


def started(bench: Bench, *, want: int = 0, without: int = 0, requires: Requires = NOTHING_REQUIRED) -> VirtioDriver:
    """A driver that started with all that is offered but *without*, and what can't go without that. Raises
    NotApplicable where *want* is not offered.
    """
    offers(bench, want)
    driver = bench.driver()
    accepted = bench.in_format(pruned(driver.registers.offered() & ~without, requires))
    if missing := want & ~accepted & ~VERSION_1:
        raise NotApplicable(f"requires what this is about being without: {names.names(bench.device_id, missing)}")
    driver.start(accepted)
    return driver
