"""A simulated machine with devices whose back-ends are the tests' own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import backend as user
from acrn_dm.backends.user import link as user_link
from acrn_dm.devices import virtio_blk, virtio_net
from acrn_dm.testing import SimMachine, VirtioDriver

LIMIT_S = 0.3  # of ``impatient``


def sim() -> SimMachine:
    return SimMachine(plugins=[virtio_blk, virtio_net, vhost_user])


def disk(machine: SimMachine, path: Path) -> VirtioDriver:
    """The driver of a disk whose back-end listens at *path*."""
    machine.add("virtio-blk", f"vhost-user={path}", slot=3)
    return machine.driver(3)


@contextmanager
def impatient() -> Iterator[None]:
    """Back-ends are waited for LIMIT_S, not ten seconds: around what is to fail, for on a busy machine all are slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_link, "TIME_LIMIT_S", LIMIT_S)
        patch.setattr(user, "TIME_LIMIT_S", LIMIT_S)
        yield
