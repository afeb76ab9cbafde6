"""Fixtures of the tests with disks whose back-ends take no notes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.base.events import eventfd
from acrn_dm.devices import virtio_blk
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import PACKED
from tests.backends.user.peers.peer import BLK_FEATURES, NO_NOTES, Peer
from tests.backends.user.user_rig import open_descriptors


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back-end is waited for no longer than it takes to see that it is: most tests leave requests behind."""
    monkeypatch.setattr(user, "TIME_LIMIT_S", 0.2)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    eventfd._choose()  # what is opened once for the process
    before = open_descriptors()
    with Peer(tmp_path / "s", protocol=NO_NOTES, features=BLK_FEATURES | PACKED) as peer:
        yield peer
    assert open_descriptors() == before


@pytest.fixture
def machine(peer: Peer, request: pytest.FixtureRequest) -> Iterator[SimMachine]:
    """With the way through C, or the one that a test names."""
    with SimMachine(plugins=[virtio_blk, vhost_user], native=getattr(request, "param", True)) as machine:
        yield machine
