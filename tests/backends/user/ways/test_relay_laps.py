"""A relay's packed ring over many laps."""

import random

import pytest

from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import INDIRECT_DESC, PACKED, VERSION_1
from tests.backends.user.peers.peer import Peer
from tests.backends.user.ways.laps import play

pytestmark = pytest.mark.usefixtures("short_patience")

SIZE = 13  # no power of two


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.stress)])
@pytest.mark.parametrize("machine", [True, False], indirect=True, ids=["c", "python"])
def test_each_request_is_answered_once_by_its_own_data_whoever_is_there(
    peer: Peer, machine: SimMachine, seed: int
) -> None:
    machine.add("virtio-blk", f"vhost-user={peer.path},relay=on", slot=3)
    features = VERSION_1 | PACKED | INDIRECT_DESC
    play(peer, machine, random.Random(seed), features=features, size=SIZE, most=4, losses=0.05)
