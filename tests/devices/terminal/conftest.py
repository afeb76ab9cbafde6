import os
from collections.abc import Iterator

import pytest

from acrn_dm.base.events.ioloop import IoLoop


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    loop = IoLoop("test")
    yield loop
    loop.close()


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    """The master, non-blocking, and the terminal; it is not the controlling one."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)
