"""Row 39 of the bug table: a missing fence loses a wake-up. A C driver on another core tries to make it happen."""

import os
import shutil
import threading
from types import ModuleType

import pytest

from benchmarks.bench_ring import Bench, native

N_CHAINS = 1_000_000


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("Cython", reason="the C driver is built by Cython")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler for the C driver")
    return native()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the race needs two cores")
def test_row39_neither_side_sleeps_while_the_other_has_something_for_it(bench: ModuleType) -> None:
    """kvmtool d7d79bd, SPDK df8d361f6c, crosvm 1f4797875: no fence between publishing and reading the other's wish.

    Both sides sleep on an eventfd when the ring tells them to. A lost kick or interrupt leaves both asleep, which ends
    the run early with fewer chains than asked for.
    """
    setup = Bench("1desc", bench)
    ring, driver = setup.ring, setup.driver
    kick, call = os.eventfd(0), os.eventfd(0)
    done: list[int] = []
    device = threading.Thread(target=lambda: done.append(bench.device_until(ring, kick, call, N_CHAINS)))
    device.start()
    returned = bench.driver_until(driver, kick, call, N_CHAINS)
    device.join()
    os.close(kick)
    os.close(call)
    assert (returned, done) == (N_CHAINS, [N_CHAINS])
