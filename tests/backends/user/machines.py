"""A simulated machine with devices whose back-ends are the tests' own."""

from pathlib import Path

from acrn_dm.backends.user import backend as user
from acrn_dm.devices import virtio_blk, virtio_net
from acrn_dm.testing import SimMachine, VirtioDriver

LIMIT_S = 0.3  # the fixture short_patience's


def sim() -> SimMachine:
    return SimMachine(plugins=[virtio_blk, virtio_net, user])


def disk(machine: SimMachine, path: Path) -> VirtioDriver:
    """The driver of a disk whose back-end listens at *path*."""
    machine.add("virtio-blk", f"vhost-user={path}", slot=3)
    return machine.driver(3)
