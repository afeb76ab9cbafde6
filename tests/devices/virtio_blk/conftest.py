"""The ways through a disk, for tests that hold on each of them."""

from collections.abc import Iterator

import pytest

from tests.devices.virtio_blk.blk_rig import AIO


@pytest.fixture(params=["", ",aio=io_uring", ",aio=threads"], ids=["python", "io_uring", "threads"])
def each_aio(request: pytest.FixtureRequest) -> Iterator[None]:
    """Disks of this test are served by Python, as where nothing is said on a loop that is stepped, or natively."""
    token = AIO.set(request.param)
    yield
    AIO.reset(token)
