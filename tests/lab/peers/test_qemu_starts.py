"""A disk of ours under QEMU, packed rings on two queues, over a reboot of the guest and a new QEMU."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.lab.peers.qemu_guest import QemuGuest, at, export, started

pytestmark = pytest.mark.lab
MIB = 1 << 20
DISK_MIB = 8
RING_PACKED = 34


@attrs.define(eq=False)
class Scene:
    """The guest of the QEMU that runs now, and the disk's file."""

    boot: Callable[[], QemuGuest]
    guest: QemuGuest
    image: Path

    def digest(self) -> str:
        """Of the disk, as the guest reads it from the device."""
        return self.guest.run("dd if=/dev/vda bs=1M iflag=direct 2> /dev/null | sha256sum").split()[0]

    def written(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.image.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file, and one more by that of a new QEMU."""
    folder = tmp_path_factory.mktemp("qemu")
    image = folder / "image"
    image.write_bytes(random.Random(2).randbytes(DISK_MIB * MIB))
    disk = export(folder, "disk", f"virtio-blk,mq=2,{image}")
    words = [*at("disk", folder, again=True), "-device", "vhost-user-blk-pci,num-queues=2,packed=on,chardev=disk"]

    def boot() -> QemuGuest:
        return QemuGuest.boot(lab_kernel, folder, words)

    with started([disk]):
        scene = Scene(boot=boot, guest=boot(), image=image)
        try:
            yield scene
        finally:
            scene.guest.end()


def assert_disk_works(scene: Scene) -> None:
    """Two queues, packed; what is read is what is in the file, before and after it is written by both CPUs."""
    assert scene.guest.run("ls /sys/block/vda/mq | wc -l") == "2"
    assert scene.guest.run(f"cut -c {RING_PACKED + 1} /sys/block/vda/device/features") == "1"
    assert scene.digest() == scene.written()
    writes = "dd if=/dev/urandom of=/dev/vda bs=1M count=2 seek={} oflag=direct conv=fsync 2> /dev/null"
    scene.guest.run(" & ".join(f"taskset {1 << cpu:x} {writes.format(3 * cpu)}" for cpu in range(2)) + "; wait")
    assert scene.digest() == scene.written()


def test_disk_of_two_packed_queues_works(scene: Scene) -> None:
    assert_disk_works(scene)


def test_guest_that_reboots_finds_its_disk_again(scene: Scene) -> None:
    scene.guest.reboot()
    assert_disk_works(scene)


def test_new_qemu_finds_the_disk_that_the_killed_one_had(scene: Scene) -> None:
    scene.guest.end()
    scene.guest = scene.boot()
    assert_disk_works(scene)
