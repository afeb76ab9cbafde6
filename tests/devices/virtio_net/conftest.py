"""Each test of the device and its queues runs over every way that frames go."""

from collections.abc import Iterator

import pytest

from tests.devices.virtio_net import net_rig

WAYS = {"native": {}, "packed": {"packed": True}, "python": {"native": False}}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """What ``card`` makes when the test does not say: served in C, with split or packed rings, or in Python."""
    net_rig.WAY.update(WAYS[request.param])
    yield
    net_rig.WAY.clear()
