"""Row 39 of the bug table: a missing fence loses a wake-up, and a guest hangs. A litmus test with a C driver."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from benchmarks.native import native
from benchmarks.ring_rigs import Bench

ROUNDS = 300_000

pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("Cython", reason="the C driver is built by Cython")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler for the C driver")
    return native()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the race needs two cores")
@pytest.mark.parametrize("kicks", [False, True], ids=["interrupt", "kick"])
def test_row_39_no_wake_up_is_lost_between_publishing_and_asking(bench: ModuleType, kicks: bool) -> None:
    """kvmtool d7d79bd, SPDK df8d361f6c, crosvm 1f4797875: no fence between our store and the load of its wish."""
    setup = Bench("1desc", bench)
    litmus = bench.Litmus(setup.driver, kicks)
    with ThreadPoolExecutor(1) as pool:
        device = pool.submit(litmus.device, ROUNDS)
        lost = litmus.driver(ROUNDS)
        device.result()
    assert lost == 0
    assert setup.ring.used_idx == ROUNDS & 0xFFFF
