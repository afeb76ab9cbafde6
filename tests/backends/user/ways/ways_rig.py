"""What the tests with disks whose back-ends take no notes share: requests, and one back-end after another."""

from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.wire.message import Request
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.backends.user.peers.peer import Peer
from tests.backends.user.user_rig import eventually


def backend(machine: SimMachine) -> VhostUser:
    """That of the only device."""
    (function,) = machine.bus.functions
    assert isinstance(function, VirtioPci)
    assert isinstance(function.data_plane.backend, VhostUser)
    return function.data_plane.backend


def request(driver: VirtioDriver, count: int = 1) -> list[int]:
    """Make *count* requests, and kick; their heads."""
    queue = driver.queue(0)
    before = set(queue._sent)
    for _ in range(count):
        queue.send([bytes(16)], [512, 1])
    queue.kick()
    return [head for head in queue._sent if head not in before]


def send(driver: VirtioDriver, count: int) -> list[int]:
    """The same, and let the machine pass them on."""
    heads = request(driver, count)
    driver.machine.settle()
    return heads


def comes(peer: Peer, machine: SimMachine) -> None:
    """A back-end gets the rings."""
    eventually(machine, lambda: Request.SET_VRING_ENABLE in peer.codes())


def next_backend(peer: Peer, machine: SimMachine) -> None:
    """The one that is there ends, and the next one gets the rings."""
    peer.seen.clear()
    peer.hang_up()
    comes(peer, machine)
