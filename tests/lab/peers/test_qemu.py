"""Devices of ours under QEMU, this host's and a newer one: a stock guest sees them, uses them, and goes on when their
processes are replaced. They are in strict sandboxes, where this host's kernel has what that takes.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.sandbox.confine import lacking
from acrn_dm.testing.guest.errors import CommandFailed
from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.guest import QemuGuest, at
from tests.backends.user.user_rig import Daemon
from tests.lab.peers.exports import export, started
from tests.lab.peers.in_guest.guest_disk import PART_MIB, GuestDisk
from tests.lab.peers.in_guest.keyboard import MODULES as KEYBOARD_MODULES
from tests.lab.peers.in_guest.keyboard import keyboard_works

pytestmark = pytest.mark.lab
MIB = 1 << 20
DISK_MIB = 16
MAC = "52:54:00:12:34:56"
FRAMES = 4
TRIES = 30  # frames that are sent for them, the first of them before there is a link


@attrs.frozen(kw_only=True)
class Scene:
    """The guest, and the process and the file of each device."""

    guest: QemuGuest
    disk: Daemon
    card: Daemon
    folder: Path
    keyboard: bool

    @property
    def image(self) -> Path:
        return self.folder / "image"

    @property
    def data(self) -> GuestDisk:
        return GuestDisk(self.guest, self.image)

    def frames(self) -> None:
        """Have the guest send frames until as many have come back: what is behind the card returns each."""
        count = "cat /sys/class/net/eth0/statistics/rx_packets"
        before = int(self.guest.run(count))
        back, send = f"[ $({count}) -ge {before + FRAMES} ]", "arping -c 1 -w 1 -I eth0 10.0.0.2 > /dev/null 2>&1"
        tries = f"for n in $(seq {TRIES}); do {back} && break; {send} || true; done"
        try:
            self.guest.run(f"{tries}; {back}", 60 + 4 * TRIES)  # a second each, where the machine is not busy
        except CommandFailed as error:
            files = "carrier statistics/?x_packets statistics/tx_dropped"
            seen = self.guest.run(
                f"cd /sys/class/net/eth0; grep . {files}; grep virtio /proc/interrupts; dmesg | tail -5"
            )
            log = self.card.log.read_text(errors="replace")[-1000:]
            error.add_note(f"{seen}\nthe card's process said: {log}\nQEMU said: {self.guest.process.stderr[-2000:]}")
            raise


def words_of(folder: Path, *, newer: bool) -> list[str]:
    """QEMU's, for the devices of the scene."""
    disk, rng, card, keys = (
        at(name, folder, again=name in ("disk", "card"), newer=newer) for name in ("disk", "rng", "card", "keys")
    )
    # QEMU 7.2 wants KVM for its vhost-user-input-pci.
    keyboard = [*keys, "-device", "vhost-user-input-pci,chardev=keys"] if newer else []
    # Without KVM QEMU 7.2 crashes where a guest with such a card unmasks an MSI-X vector (kvm_virtio_pci_irqfd_use).
    vectors = "" if newer else ",vectors=0"
    return [
        *(*disk, "-device", "vhost-user-blk-pci,num-queues=1,chardev=disk"),
        *(*rng, "-device", "vhost-user-rng-pci,chardev=rng"),
        *(*card, "-netdev", "vhost-user,id=n,chardev=card", "-device", f"virtio-net-pci,netdev=n,mac={MAC}{vectors}"),
        *keyboard,
    ]


@pytest.fixture(scope="module", params=["this host's", "a newer one"])
def scene(
    request: pytest.FixtureRequest, lab_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """One boot under each for all tests of this file."""
    newer = request.param != "this host's"
    qemu = request.getfixturevalue("qemu") if newer else []
    folder = tmp_path_factory.mktemp("qemu")
    image = folder / "image"
    image.write_bytes(random.Random(1).randbytes(DISK_MIB * MIB))
    texts = {
        "disk": f"virtio-blk,{image}",
        "rng": "virtio-rnd",
        "card": f"virtio-net,driver=loop,mac={MAC}",
        "keys": f"virtio-input,kind=keyboard,control={folder / 'keyboard'}",
    }
    mode = "on" if lacking() else "strict"
    made = {name: export(folder, name, text, "vhost-user", f"--sandbox={mode}") for name, text in texts.items()}
    with started(list(made.values())):
        guest = QemuGuest.boot(lab_kernel, folder, words_of(folder, newer=newer), qemu=qemu, modules=KEYBOARD_MODULES)
        try:
            guest.run("ip link set eth0 up && ip addr add 10.0.0.1/24 dev eth0")
            yield Scene(guest=guest, disk=made["disk"], card=made["card"], folder=folder, keyboard=newer)
        finally:
            guest.end()


def test_disk_is_read_and_written(scene: Scene) -> None:
    assert scene.guest.run("cat /sys/block/vda/size") == str(DISK_MIB * MIB // 512)
    assert scene.data.digest(0) == scene.data.written(0)
    assert scene.data.write(PART_MIB) == scene.data.digest(PART_MIB) == scene.data.written(PART_MIB)


def test_entropy_arrives(scene: Scene) -> None:
    assert scene.guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    first, second = (scene.guest.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | sha256sum") for _ in range(2))
    assert first != second


def test_keys_arrive(scene: Scene) -> None:
    if not scene.keyboard:
        pytest.skip("QEMU 7.2 has a keyboard for guests with KVM only")
    keyboard_works(scene.guest.run, scene.folder / "keyboard")


def test_frames_come_back_from_the_card(scene: Scene) -> None:
    assert scene.guest.run("cat /sys/class/net/eth0/address") == MAC
    scene.frames()


@pytest.mark.parametrize("driver", ["virtio_blk", "virtio_rng"])
def test_driver_leaves_and_comes_back(scene: Scene, driver: str) -> None:
    folder = f"/sys/bus/virtio/drivers/{driver}"
    name = scene.guest.run(f"cd {folder}; echo virtio*")
    scene.guest.run(f"echo {name} > {folder}/unbind; ! [ -e {folder}/{name} ] && echo {name} > {folder}/bind")
    if driver == "virtio_blk":
        assert scene.data.digest(0) == scene.data.written(0)
    else:
        assert scene.guest.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | wc -c") == "512"


def test_guest_goes_on_with_the_next_process(scene: Scene) -> None:
    """Nothing is in flight when the processes are killed: QEMU has no notes of a disk that takes none."""
    for daemon in (scene.disk, scene.card):
        daemon.kill()
        daemon.start()
    assert scene.data.write(2 * PART_MIB) == scene.data.digest(2 * PART_MIB) == scene.data.written(2 * PART_MIB)
    scene.frames()
