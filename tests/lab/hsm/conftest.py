"""The small machine on the emulated HSM, and a disk that launch lines name."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.hsm.block_device import BlockDevice
from tests.lab.hsm.hsm_scene import Hsm, make_hsm


@pytest.fixture
def hsm(lab: OuterVm, request: pytest.FixtureRequest) -> Hsm:
    return make_hsm(lab, request)


@pytest.fixture
def nvme(hsm: Hsm) -> Iterator[BlockDevice]:
    device = BlockDevice(hsm)
    device.make()
    yield device
    device.remove()
