"""A function, served, and a client that has greeted it."""

import random
from collections.abc import Iterator
from pathlib import Path

import acrn_dm_edu
import pytest

from acrn_dm.contract.types import Bdf, DeviceContext
from acrn_dm.export.vfio_user.function import ExportedFunction
from tests.export.vfio_user.vfio_rig import Client, served
from tests.export.vfio_user.virtio_rig import PAGE


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[ExportedFunction]:
    """``edu`` at the socket ``s``, with all address bits."""
    config = acrn_dm_edu.EduConfig(dma_mask=(1 << 64) - 1)
    function = acrn_dm_edu.EduFunction(config, DeviceContext(bdf=Bdf(slot=0), kind="edu"))
    with served(function, tmp_path / "s") as it:
        yield it


@pytest.fixture
def client(exported: ExportedFunction, tmp_path: Path) -> Iterator[Client]:
    it = Client.connect(tmp_path / "s")
    it.greet()
    yield it
    it.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk's file of 256 pages."""
    path = tmp_path / "image"
    path.write_bytes(random.Random(1).randbytes(256 * PAGE))
    return path
