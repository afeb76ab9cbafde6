"""The host's own pools of huge pages, which tests in several processes change one after another."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.memory.hugepages import HugePages

MIB = 1 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@contextmanager
def pages_alone(lock: Path) -> Iterator[HugePages]:
    """The pools, if that of small pages can grow; nobody else's who has the same *lock* meanwhile."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        made = HugePages()
        try:
            with made.reserved([(0, 8 * MIB)]):
                pass
        except HostError as e:
            pytest.skip(str(e))
        made.give_back()
        yield made
