"""PCI functions of ours behind the IOMMU of a newer QEMU: a stock vfio-pci maps each page, and takes INTx and MSI;
stock virtio drivers map each buffer.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.inner import python
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.served.machine import vfio_user
from lab.qemu.guest import QemuGuest
from tests.backends.user.user_rig import Daemon
from tests.lab.peers.exports import export, started
from tests.lab.peers.in_guest import edu_guest

pytestmark = pytest.mark.lab
PROGRAM = "/edu_guest.py"
MIB = 1 << 20
PART = 256 << 10  # bytes: each request of a disk is mapped page by page, each page a message
ACCESS_PLATFORM = 33


@attrs.frozen(kw_only=True)
class Scene:
    """The guest, and the process of its device."""

    guest: QemuGuest
    edu: Daemon
    address: str
    image: Path


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file."""
    folder = tmp_path_factory.mktemp("vfio-user")
    image = folder / "image"
    image.write_bytes(random.Random(1).randbytes(MIB))
    edu = export(folder, "edu", "edu", protocol="vfio-user")
    disk = export(folder, "disk", f"virtio-blk,{image}", protocol="vfio-user")
    rng = export(folder, "rng", "virtio-rnd", protocol="vfio-user")
    words = [word for name in ("edu", "disk", "rng") for word in vfio_user(name, folder)]
    with started([edu, disk, rng]):
        guest = QemuGuest.boot(
            lab_kernel,
            folder,
            ["-device", "intel-iommu,caching-mode=on", *words],
            board="q35",
            qemu=qemu,
            modules=["vfio_iommu_type1", "vfio-pci"],
            append="intel_iommu=on vfio_iommu_type1.allow_unsafe_interrupts=1",
            files={PROGRAM: Path(edu_guest.__file__).read_bytes()},
            behind=python.archive(),
        )
        try:
            pci = "/sys/bus/pci"
            every = f"for d in {pci}/devices/*; do [ $(cat $d/device) = 0x11e8 ] && echo ${{d##*/}}; done; true"
            address = guest.run(every)
            guest.run(f"echo vfio-pci > {pci}/devices/{address}/driver_override")
            guest.run(f"echo {address} > {pci}/drivers_probe")
            yield Scene(guest=guest, edu=edu, address=address, image=image)
        finally:
            guest.end()


@pytest.mark.parametrize("kind", ["intx", "msi"])
def test_card_computes_moves_and_interrupts(scene: Scene, kind: str) -> None:
    """Each time it is opened anew, so that it is reset, and its pages are mapped and unmapped by the IOMMU."""
    said = json.loads(scene.guest.run(f"{python.PROGRAM} -I {PROGRAM} {scene.address} {kind}"))
    assert said["id"] == 0x010000ED
    assert (said["inverse"], said["factorial"]) == (0xFFFFEDCB, 3628800)
    assert said["moved"]
    assert said["interrupts"] == [1, 2, 4, 0]


def test_disk_moves_data_in_pages_that_are_mapped_for_each_request(scene: Scene) -> None:
    guest, image = scene.guest, scene.image
    device = guest.run("readlink -f /sys/block/vda/device")
    assert guest.run(f"cat {device}/features")[ACCESS_PLATFORM] == "1"
    assert guest.run(f"ls -d {device}/../iommu_group")
    read = guest.run(f"dd if=/dev/vda bs={PART} count=2 iflag=direct 2> /dev/null | sha256sum", 120).split()[0]
    assert read == hashlib.sha256(image.read_bytes()[: 2 * PART]).hexdigest()
    made = f"dd if=/dev/urandom of=/tmp/noise bs={PART} count=1 2> /dev/null"
    copied = f"dd if=/tmp/noise of=/dev/vda bs={PART} seek=2 oflag=direct conv=fsync 2> /dev/null"
    written = guest.run(f"{made} && {copied} && sha256sum < /tmp/noise", 120).split()[0]
    assert written == hashlib.sha256(image.read_bytes()[2 * PART : 3 * PART]).hexdigest()


def test_entropy_arrives_in_a_buffer_that_is_mapped_for_it(scene: Scene) -> None:
    first, second = (scene.guest.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | sha256sum") for _ in range(2))
    assert first != second
