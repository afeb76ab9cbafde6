"""Virtio devices of ours in a newer QEMU, by its client of vfio-user: a stock guest's drivers use each of them, over
unbinding, plugging, a reboot of the guest and a new QEMU.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.served.machine import vfio_user
from lab.qemu.guest import QemuGuest
from tests.export.vfio_user.test_functions import Express
from tests.export.vfio_user.vfio_rig import served
from tests.lab.peers.exports import export, started
from tests.lab.peers.in_guest.guest_disk import PART_MIB, GuestDisk
from tests.lab.peers.qmp import Qmp
from tests.patience import comes_true

pytestmark = pytest.mark.lab
MIB = 1 << 20
DISK_MIB = 16
MAC = "52:54:00:12:34:56"
FRAMES = 4
VIRTIO = "/sys/bus/virtio"
PORTS = 3


@attrs.define(eq=False)
class Scene:
    """The guest of the QEMU that runs now, and the files of its devices."""

    boot: Callable[..., QemuGuest]
    guest: QemuGuest
    folder: Path
    image: Path
    port: Path

    @property
    def data(self) -> GuestDisk:
        return GuestDisk(self.guest, self.image)

    def frames(self) -> None:
        """Have the guest send frames until as many have come back: what is behind the card returns each."""
        count = "cat /sys/class/net/eth0/statistics/rx_packets"
        self.guest.run("ip link set eth0 up; ip addr add 10.0.0.1/24 dev eth0 2> /dev/null || true")
        before = int(self.guest.run(count))
        send = "arping -c 1 -w 1 -I eth0 10.0.0.2 > /dev/null 2>&1"
        self.guest.run(f"until [ $({count}) -ge {before + FRAMES} ]; do {send} || true; done", 40)

    def entropy(self) -> None:
        first, second = (self.guest.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | sha256sum") for _ in range(2))
        assert first != second

    def say(self, words: str) -> None:
        """Have the guest write to the port, which is a file of the host's."""
        before = self.port.read_text()
        self.guest.run(
            f"for p in /sys/class/virtio-ports/*; do [ $(cat $p/name) = ours ] && "
            f"echo {words} > /dev/${{p##*/}}; done; true"
        )
        assert comes_true(lambda: self.port.read_text() == f"{before}{words}\n")


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file, and one more by that of a new QEMU."""
    folder = tmp_path_factory.mktemp("virtio")
    image, port = folder / "image", folder / "port"
    image.write_bytes(random.Random(1).randbytes(DISK_MIB * MIB))
    devices = {
        "rng": "virtio-rnd",
        "disk": f"virtio-blk,mq=2,{image}",
        "card": f"virtio-net,driver=loop,mac={MAC}",
        "port": f"virtio-console,file:ours={port}",
        "edu": "edu",
        "plug": f"virtio-blk,{image},ro,share=on",
    }
    pulled = {"pulled-rng": "virtio-rnd", "pulled-disk": f"virtio-blk,{image},ro,share=on"}
    ports = [f"pcie-root-port,id=port{n},chassis={n}" for n in range(PORTS)]
    words = ["-qmp", f"unix:{folder}/qmp,server=on,wait=off", *(word for port in ports for word in ("-device", port))]
    words += [word for name in ("rng", "disk", "card", "port") for word in vfio_user(name, folder)]
    words += vfio_user("express", folder, bus="port0")

    def boot(append: str = "") -> QemuGuest:
        (folder / "qmp").unlink(missing_ok=True)
        return QemuGuest.boot(lab_kernel, folder, words, board="q35", qemu=qemu, cpus=2, append=append)

    with contextlib.ExitStack() as stack:
        daemons = [export(folder, name, text, "vfio-user") for name, text in devices.items()]
        daemons += [export(folder, name, text, "vfio-user", "--virtio_msi") for name, text in pulled.items()]
        stack.enter_context(started(daemons))
        stack.enter_context(served(Express(), folder / "express.sock"))
        scene = Scene(boot=boot, guest=boot(), folder=folder, image=image, port=port)
        try:
            yield scene
        finally:
            scene.guest.end()


def assert_devices_work(scene: Scene, part: int) -> None:
    scene.entropy()
    assert scene.data.digest(0) == scene.data.written(0)
    assert scene.data.write(part) == scene.data.digest(part) == scene.data.written(part)
    scene.frames()
    scene.say(f"part{part}")


def test_devices_work(scene: Scene) -> None:
    assert_devices_work(scene, PART_MIB)


def test_each_queue_has_its_vector(scene: Scene) -> None:
    """Two CPUs, so two queues of the disk, each of which has interrupted."""
    for cpu in range(2):
        scene.guest.run(f"taskset -c {cpu} dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2> /dev/null")
    lines = scene.guest.run("grep 'virtio[0-9]*-req' /proc/interrupts").splitlines()
    assert len(lines) == 2
    assert all(sum(map(int, line.split()[1:3])) > 0 for line in lines)


@pytest.mark.parametrize("driver", ["virtio_blk", "virtio_rng", "virtio_net"])
def test_driver_leaves_and_comes_back(scene: Scene, driver: str) -> None:
    folder = f"{VIRTIO}/drivers/{driver}"
    name = scene.guest.run(f"cd {folder}; echo virtio*")
    scene.guest.run(f"echo {name} > {folder}/unbind; ! [ -e {folder}/{name} ] && echo {name} > {folder}/bind")
    if driver == "virtio_blk":
        assert scene.data.digest(0) == scene.data.written(0)
    elif driver == "virtio_net":
        scene.frames()
    else:
        scene.entropy()


def test_express_function_has_an_extended_configuration_space(scene: Scene) -> None:
    sizes = scene.guest.run(
        "for d in /sys/bus/pci/devices/*; do echo $(cat $d/vendor $d/device) $(wc -c < $d/config); done"
    ).splitlines()
    assert "0x1234 0x0001 4096" in sizes
    assert [size.split()[2] for size in sizes if size.startswith("0x1af4 0x1005")] == ["256"]


@pytest.fixture
def qmp(scene: Scene) -> Iterator[Qmp]:
    with contextlib.closing(Qmp(scene.folder / "qmp")) as monitor:
        yield monitor


def plug(qmp: Qmp, scene: Scene, name: str, bus: str) -> None:
    socket = {"type": "unix", "path": str(scene.folder / f"{name}.sock")}
    qmp.run("device_add", driver="vfio-user-pci", id=name, bus=bus, socket=socket, **{"x-msg-timeout": 60000})


def test_disk_is_plugged_into_a_running_guest(scene: Scene, qmp: Qmp) -> None:
    plug(qmp, scene, "plug", "port1")
    scene.guest.run("until [ -b /dev/vdb ]; do usleep 50000; done", 60)
    read = scene.guest.run(f"dd if=/dev/vdb bs=1M count={PART_MIB} iflag=direct 2> /dev/null | sha256sum").split()[0]
    assert read == scene.data.written(0)


def pull(qmp: Qmp, name: str) -> None:
    qmp.run("device_del", id=name)
    qmp.wait("DEVICE_DELETED", name)


def test_function_is_plugged_pulled_and_plugged_again(scene: Scene, qmp: Qmp) -> None:
    there = "cat /sys/bus/pci/devices/*/device | grep -c 0x11e8 || true"
    for _ in range(2):
        plug(qmp, scene, "edu", "port2")
        scene.guest.run(f"until [ $({there}) = 1 ]; do usleep 50000; done", 60)
        pull(qmp, "edu")
        scene.guest.run(f"until [ $({there}) = 0 ]; do usleep 50000; done", 60)


def test_disk_without_msix_is_plugged_pulled_and_plugged_again(scene: Scene, qmp: Qmp) -> None:
    """With MSI-X, whatever the layout, QEMU 11 aborts: it detaches the pending bits' region a second time."""
    disks = "ls /sys/block | grep -c vd || true"
    before = int(scene.guest.run(disks))
    for _ in range(2):
        known = scene.guest.run("echo /sys/block/vd*").split()
        plug(qmp, scene, "pulled-disk", "port2")
        scene.guest.run(f"until [ $({disks}) = {before + 1} ]; do usleep 50000; done", 60)
        (new,) = set(scene.guest.run("echo /sys/block/vd*").split()) - set(known)
        node = f"/dev/{new.rpartition('/')[2]}"
        read = (
            f"until [ -b {node} ]; do usleep 50000; done; dd if={node} bs=1M count={PART_MIB} iflag=direct 2> /dev/null"
        )
        assert scene.guest.run(f"{read} | sha256sum").split()[0] == scene.data.written(0)
        pull(qmp, "pulled-disk")
        scene.guest.run(f"until [ $({disks}) = {before} ]; do usleep 50000; done", 60)


def test_entropy_device_without_msix_is_plugged_pulled_and_plugged_again(scene: Scene, qmp: Qmp) -> None:
    """While the guest reads from it."""
    known = "/sys/class/misc/hw_random"
    (first,) = scene.guest.run(f"cat {known}/rng_available").split()
    for _ in range(2):
        plug(qmp, scene, "pulled-rng", "port2")
        scene.guest.run(f"until [ $(wc -w < {known}/rng_available) = 2 ]; do usleep 50000; done", 60)
        (new,) = set(scene.guest.run(f"cat {known}/rng_available").split()) - {first}
        scene.guest.run(f"echo {new} > {known}/rng_current")
        scene.entropy()
        pull(qmp, "pulled-rng")
        scene.guest.run(f"until [ $(cat {known}/rng_current) = {first} ]; do usleep 50000; done", 60)
        scene.entropy()


def test_guest_that_reboots_finds_devices_as_after_power_on(scene: Scene) -> None:
    scene.guest.reboot()
    assert_devices_work(scene, 2 * PART_MIB)


def test_new_qemu_finds_the_devices_that_the_killed_one_had_and_takes_them_by_the_pin(scene: Scene) -> None:
    scene.guest.end()
    scene.guest = scene.boot("pci=nomsi")
    assert_devices_work(scene, 3 * PART_MIB)
    lines = [line for line in scene.guest.run("cat /proc/interrupts").splitlines() if "virtio" in line]
    assert all("IO-APIC" in line for line in lines)
    assert sum(int(count) for line in lines for count in line.split()[1:3]) > 0
