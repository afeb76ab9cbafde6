"""Disks of ours under QEMU, of two queues with packed and with split rings: over the end of our processes, a reboot of
the guest and a new QEMU. With ``QEMU=newer`` it is a newer one.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.guest import QemuGuest, at
from tests.backends.user.user_rig import Daemon
from tests.lab.peers.exports import export, started
from tests.patience import comes_true

pytestmark = pytest.mark.lab
MIB = 1 << 20
DISK_MIB = 8
BLOCK, WRITERS = 4096, 8
RING_PACKED = 34


@attrs.define(eq=False)
class Disk:
    """One disk: its process, its file, and what the guest knows it by."""

    daemon: Daemon
    image: Path
    node: str
    packed: bool

    def written(self) -> str:
        """The file's digest."""
        return hashlib.sha256(self.image.read_bytes()).hexdigest()


@attrs.define(eq=False)
class Scene:
    """The guest of the QEMU that runs now, and its disks."""

    boot: Callable[[], QemuGuest]
    guest: QemuGuest
    packed: Disk
    split: Disk

    def digest(self, disk: Disk) -> str:
        """Of the disk, as the guest reads it from the device."""
        return self.guest.run(f"dd if=/dev/{disk.node} bs=1M iflag=direct 2> /dev/null | sha256sum").split()[0]


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, either_qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file, and one more by that of a new QEMU."""
    folder = tmp_path_factory.mktemp("qemu")
    packed, split = make_disk(folder, "vda", packed=True), make_disk(folder, "vdb", packed=False)
    words: list[str] = []
    for disk in (packed, split):
        device = f"vhost-user-blk-pci,num-queues=2,packed={'on' if disk.packed else 'off'},chardev={disk.node}"
        words += [*at(disk.node, folder, again=True, newer=bool(either_qemu)), "-device", device]

    def boot() -> QemuGuest:
        return QemuGuest.boot(lab_kernel, folder, words, qemu=either_qemu)

    with started([packed.daemon, split.daemon]):
        scene = Scene(boot=boot, guest=boot(), packed=packed, split=split)
        try:
            yield scene
        finally:
            scene.guest.end()


def make_disk(folder: Path, node: str, *, packed: bool) -> Disk:
    image = folder / f"{node}.img"
    image.write_bytes(random.Random(2).randbytes(DISK_MIB * MIB))
    return Disk(daemon=export(folder, node, f"virtio-blk,mq=2,{image}"), image=image, node=node, packed=packed)


def assert_disk_works(scene: Scene) -> None:
    """Two queues, packed; what is read is what is in the file, before and after it is written by both CPUs."""
    disk = scene.packed
    assert scene.guest.run("ls /sys/block/vda/mq | wc -l") == "2"
    assert scene.guest.run(f"cut -c {RING_PACKED + 1} /sys/block/vda/device/features") == "1"
    assert scene.digest(disk) == disk.written()
    writes = "dd if=/dev/urandom of=/dev/vda bs=1M count=2 seek={} oflag=direct conv=fsync 2> /dev/null"
    scene.guest.run(" & ".join(f"taskset {1 << cpu:x} {writes.format(3 * cpu)}" for cpu in range(2)) + "; wait")
    assert scene.digest(disk) == disk.written()


def assert_next_process_goes_on(scene: Scene, disk: Disk) -> None:
    """Eight writers at once, a fourth of whose blocks are written when the process is killed; each block arrives."""
    assert scene.guest.run(f"cut -c {RING_PACKED + 1} /sys/block/{disk.node}/device/features") == f"{disk.packed:d}"
    before, blocks = disk.image.read_bytes(), DISK_MIB * MIB // BLOCK
    scene.guest.run(f"dd if=/dev/urandom of=/data bs=1M count={DISK_MIB} 2> /dev/null; rm -f /done")
    write = f"dd if=/data of=/dev/{disk.node} bs={BLOCK} count={blocks // WRITERS} oflag=direct 2> /dev/null"
    writers = [
        f"taskset {1 + n % 2:x} {write} skip={n * blocks // WRITERS} seek={n * blocks // WRITERS} &"
        for n in range(WRITERS)
    ]
    scene.guest.run(f"({' '.join(writers)} wait; touch /done) > /dev/null 2>&1 &")
    assert comes_true(lambda: changed(disk.image.read_bytes(), before) > blocks // 4, 60.0)
    disk.daemon.kill()
    assert changed(disk.image.read_bytes(), before) < blocks, "all was written before the process died"
    disk.daemon.start()
    assert writers_end(scene.guest, disk, before)
    wanted = scene.guest.run("sha256sum /data").split()[0]
    assert (scene.digest(disk), disk.written()) == (wanted, wanted)


def writers_end(guest: QemuGuest, disk: Disk, before: bytes) -> bool:
    """Whether they do, however slowly, as long as some block arrives each minute."""
    last = -1
    while last < (written := changed(disk.image.read_bytes(), before)):
        last = written
        if comes_true(lambda: guest.run("ls /done 2> /dev/null || true") == "/done", 60.0):
            return True
    return False


def changed(now: bytes, before: bytes) -> int:
    """How many blocks are others."""
    return sum(now[at : at + BLOCK] != before[at : at + BLOCK] for at in range(0, len(before), BLOCK))


def test_disk_of_two_packed_queues_works(scene: Scene) -> None:
    assert_disk_works(scene)


def test_packed_queues_go_on_with_the_next_process(scene: Scene) -> None:
    assert_next_process_goes_on(scene, scene.packed)


def test_split_queues_go_on_with_the_next_process(scene: Scene) -> None:
    assert_next_process_goes_on(scene, scene.split)


def test_guest_that_reboots_finds_its_disk_again(scene: Scene) -> None:
    scene.guest.reboot()
    assert_disk_works(scene)


def test_new_qemu_finds_the_disk_that_the_killed_one_had(scene: Scene) -> None:
    scene.guest.end()
    scene.guest = scene.boot()
    assert_disk_works(scene)
