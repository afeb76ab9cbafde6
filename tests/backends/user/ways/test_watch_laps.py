"""A watched ring over many laps."""

import random

import pytest

from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import INDIRECT_DESC, VERSION_1
from tests.backends.user.peers.peer import Peer
from tests.backends.user.ways.laps import play
from tests.backends.user.ways.ways_rig import backend
from tests.patience import comes_true

pytestmark = pytest.mark.usefixtures("short_patience")

SIZE = 32


@pytest.mark.parametrize("seed", [*range(5), pytest.param(5, marks=pytest.mark.stress)])
def test_each_request_is_answered_once_by_its_own_data_whoever_is_there(
    peer: Peer, machine: SimMachine, seed: int
) -> None:
    machine.add("virtio-blk", f"vhost-user={peer.path}", slot=3)

    def look() -> None:
        """Let the watch, if there is one, see what has passed: of much of a ring at once nobody knows."""
        watch = backend(machine)._way._watch
        if watch is not None and watch.looks:
            before = watch._sampler.samples
            assert comes_true(lambda: watch._sampler.samples > before)

    features = VERSION_1 | INDIRECT_DESC
    play(peer, machine, random.Random(seed), features=features, size=SIZE, most=6, losses=0.1, look=look)
