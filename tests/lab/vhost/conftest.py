"""One guest for everything that other data planes carry, of an acrn-dm in a strict sandbox: cards of one queue pair and
of two and a vsock on the kernel's vhost, a disk and a console by vhost-user, a folder and entropy that other programs
are; and a console that acrn-dm serves itself.
"""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.vhost import fs_scene
from tests.lab.vhost.user_scene import CONSOLE, DISK, Backends, serving
from tests.lab.vhost.vhost_scene import (
    ONE_PAIR,
    TWO_PAIRS,
    VSOCK_MODULES,
    Scene,
    set_up_probes,
    stage,
)

CID = 42
SECOND = "/run/lab-second.sock"  # of the console that acrn-dm serves itself


@pytest.fixture(scope="package")
def backends(lab: OuterVm) -> Iterator[Backends]:
    with serving(lab) as made:
        yield made


@pytest.fixture(scope="package")
def others(lab: OuterVm) -> Iterator[None]:
    with fs_scene.serving(lab):
        yield


@pytest.fixture(scope="package")
def scene(lab: OuterVm, lab_kernel: Kernel, backends: Backends, others: None) -> Iterator[Scene]:
    set_up_probes(lab)
    devices = (
        *("--sandbox", "strict"),
        *("-s", f"5,vhost-vsock,cid={CID}"),
        *("-s", f"6,virtio-blk,vhost-user={DISK},relay=on"),
        *("-s", f"7,virtio-console,vhost-user={CONSOLE}"),
        *("-s", f"8,virtio-console,socket:second={SECOND}"),
        *fs_scene.devices(),
    )
    cards = {ONE_PAIR: "vhost", TWO_PAIRS: "vhost,mq=2"}
    modules = [*VSOCK_MODULES, *fs_scene.MODULES]
    with stage(lab, lab_kernel, cards, *devices, modules=modules) as made:
        yield made
