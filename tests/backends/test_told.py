"""A ring whose client is told of writes: what is said, and when."""

import mmap
from collections.abc import Sequence

import pytest

from acrn_dm._fastring import MemoryMap
from acrn_dm.backends.told import ToldRing
from acrn_dm.ring.factory import make_ring
from tests.ring.formats import FORMATS, Format, Placed

RING, DATA, PAGE, SIZE = 0x1000, 0x8000, 0x1000, 16


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_only_what_was_written_is_told_and_before_it_is_shown(fmt: Format) -> None:
    ram = mmap.mmap(-1, 16 * PAGE)
    layout = fmt.lay_out(RING, SIZE)
    driver = fmt.driver(MemoryMap([(0, ram)]), layout)
    said: list[tuple[int, int]] = []
    shown: list[int] = []  # chains that the driver saw when something was said

    def tell(parts: Sequence[tuple[int, int]]) -> None:
        said.extend(parts)
        shown.append(driver.returned())

    inner = make_ring(fmt.features(), Placed(layout, fmt.position(layout, 0)), MemoryMap([(0, ram)]))
    ring = ToldRing(inner, tell)
    driver.add_chain([(DATA, 8)], [(DATA + PAGE, 16), (DATA + 2 * PAGE, 16), (DATA + 3 * PAGE, 16)])
    driver.publish()
    (chain,) = ring.pop_batch(1)
    ring.push(chain, 20)
    ring.publish()
    assert said == [(DATA + PAGE, 16), (DATA + 2 * PAGE, 4)]
    assert (shown, driver.returned()) == ([0], 1)
    ring.publish()
    assert shown == [0]
    ring.close()
