"""Devices of ours in a newer QEMU, by its generic vhost-user device, which knows nothing of their kinds, and by those
for single kinds: a stock guest uses them, over new drivers, a reboot, the end of a process of ours and a new QEMU.
Their processes are in strict sandboxes, where this host's kernel has what that takes.

Of GPIO lines and I2C, for which Debian's kernel has no drivers, the registers are looked at.
"""

import contextlib
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.sandbox.confine import lacking
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.making import make_device
from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.qemu.guest import QemuGuest, at
from tests.backends.user.user_rig import Daemon
from tests.docs.page_runner import ROOT, lines_for
from tests.lab.peers.exports import connected, export, started
from tests.lab.peers.in_guest.keyboard import EVENT, keyboard_works
from tests.lab.peers.in_guest.keyboard import MODULES as KEYBOARD_MODULES

pytestmark = pytest.mark.lab

MODULES = ("9p", "9pnet_virtio", *KEYBOARD_MODULES)
PATIENCE_S = 20.0
ABS = 3
GPIO, I2C = 41, 34
CONFIG_PLACE = 0x2000  # of a device's own configuration space in QEMU's BAR 4; the common one is at its start
PAGE = ROOT / "docs" / "how-to" / "exporting" / "qemu.md"
TABLET = ("virtio-input,kind=tablet,control=%/tablet", "vhost-user-input-pci")
FOREIGN = ("virtio-9p", "vhost-user-test-device-pci,virtio-id=9,num_vqs=1,vq_size=128,config_size=9,packed=on")


def of_the_page() -> dict[str, tuple[str, str]]:
    """By the sockets' names: our device and QEMU's, as the page has them."""
    ours, theirs = map(shlex.split, lines_for(PAGE.read_text(), "tests/lab/peers/generic/test_generic.py"))
    sockets = [Path(word.partition("=")[2]).stem for word in ours if word.startswith("--socket-path=")]
    devices = [theirs[i + 1] for i, word in enumerate(theirs) if word == "-device"]
    shown = {name: device for device in devices for name in re.findall(r"chardev=(\w+)", device)}
    assert len(shown) == len(sockets) == 5
    texts = (word.replace("/run/", "%/") for word in ours[2:])
    return {
        name: (text, shown[name].replace(f",chardev={name}", "")) for name, text in zip(sockets, texts, strict=False)
    }


DEVICES = {"tablet": TABLET} | of_the_page() | {"files": FOREIGN}  # of two inputs the keyboard's driver is the last one
PLACES = itertools.count(100)


@attrs.define(eq=False)
class Scene:
    """The guest of the QEMU that runs now, and the process of each device."""

    boot: Callable[[], QemuGuest]
    guest: QemuGuest
    processes: Mapping[str, Daemon]
    folder: Path

    def run(self, command: str) -> str:
        return self.guest.run(command, PATIENCE_S)

    @contextlib.contextmanager
    def reading(self, device: str, count: int) -> Iterator[Callable[[], bytes]]:
        """Somebody in the guest reads so many bytes from *device*; what comes is there when it has come."""
        self.run(
            f"rm -f /tmp/read; dd if={device} of=/tmp/read bs={count} count=1 iflag=fullblock 2> /dev/null & "
            f"until ls -l /proc/$!/fd | grep -q {device}; do usleep 10000; done"
        )
        size = "stat -c %s /tmp/read"
        done = f"until [ $({size}) -ge {count} ]; do usleep 10000; done; xxd -p /tmp/read | tr -d '\\n'"
        yield lambda: bytes.fromhex(self.run(done))

    def common(self, number: int) -> int:
        """Where the registers are of the device of that virtio number, which has no driver."""
        found = self.run(
            "for d in /sys/bus/virtio/devices/*; do "
            f"if [ $(($(cat $d/device))) = {number} ]; then readlink -f $d/..; fi; done"
        )
        return int(self.run(f"sed -n 5p {found}/resource").split()[0], 16)

    def peek(self, address: int, bits: int = 32) -> int:
        return int(self.run(f"devmem {address:#x} {bits}"), 16)


def console_works(scene: Scene) -> None:
    port = scene.run("until port_named peer; do usleep 10000; done")  # its name comes behind its driver
    with connected(scene.folder / "peer") as peer:
        scene.run(f"echo from the guest > {port}")
        assert peer.recv(100) == b"from the guest\n"
        with scene.reading(port, 12) as come:
            peer.sendall(b"from outside")
            assert come() == b"from outside"


def entropy_works(scene: Scene) -> None:
    assert scene.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    first, second = (scene.run("dd if=/dev/hwrng bs=512 count=1 2> /dev/null | sha256sum") for _ in range(2))
    assert first != second


def files_work(scene: Scene) -> None:
    """A kind of device that only the plugin knows, with a driver of Debian's; packed rings."""
    scene.run("mkdir -p /mnt && mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536 foreign /mnt")
    scene.run("dd if=/dev/urandom of=/tmp/noise bs=1k count=300 2> /dev/null; cat /tmp/noise > /mnt/notes")
    assert len(set(scene.run("sha256sum < /tmp/noise; sha256sum < /mnt/notes").split()) - {"-"}) == 1
    scene.run("umount /mnt")


def keys_work(scene: Scene) -> None:
    keyboard_works(scene.run, scene.folder / "keyboard")


def pointer_moves(scene: Scene) -> None:
    """To a place where it has not been, or the kernel said nothing of it."""
    x, y = next(PLACES), next(PLACES)
    device = scene.run("grep -l 'acrn-dm tablet' /sys/class/input/event*/device/name").split("/")[4]
    with connected(scene.folder / "tablet") as peer, scene.reading(f"/dev/input/{device}", 3 * EVENT.size) as come:
        peer.sendall(f"abs {x} {y}\n".encode())
        assert peer.recv(100) == b"ok\n"
        assert list(EVENT.iter_unpack(come())) == [(ABS, 0, x), (ABS, 1, y), (0, 0, 0)]


def lines_are_there(scene: Scene) -> None:
    """Queues, features and configuration of a device that nobody drives: two lines with names, and interrupts."""
    common = scene.common(GPIO)
    scene.run(f"devmem {common:#x} 32 0")
    assert scene.peek(common + 4) & 1, "VIRTIO_GPIO_F_IRQ"
    assert scene.peek(common + 18, 16) == 2, "queues"
    assert scene.peek(common + CONFIG_PLACE, 16) == 2, "lines"
    assert scene.peek(common + CONFIG_PLACE + 4) == len("button\0led\0")


def bus_is_there(scene: Scene) -> None:
    common = scene.common(I2C)
    scene.run(f"devmem {common:#x} 32 0")
    assert scene.peek(common + 4) & 1, "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST"
    assert scene.peek(common + 18, 16) == 1, "queues"


KINDS = {
    "peer": console_works,
    "rng": entropy_works,
    "files": files_work,
    "keys": keys_work,
    "tablet": pointer_moves,
    "lines": lines_are_there,
    "bus": bus_is_there,
}
DRIVERS = {"peer": "virtio_console", "rng": "virtio_rng", "files": "9pnet_virtio", "keys": "virtio_input"}


def exported(folder: Path, name: str, installed: Path) -> Daemon:
    """The process of the device *name*, which finds what is in the folder *installed*."""
    mode = "on" if lacking() else "strict"
    daemon = export(folder, name, DEVICES[name][0].replace("%", str(folder)), "vhost-user", f"--sandbox={mode}")
    path = os.pathsep.join([str(installed), os.getcwd()])
    return attrs.evolve(daemon, argv=["env", f"PYTHONPATH={path}", *daemon.argv])


def install(folder: Path) -> Path:
    """The package of the kind that is not ours, as pip leaves it."""
    information = folder / "nine_p-1.0.dist-info"
    information.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("nine_p.py"), folder)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: nine-p\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[acrn_dm]\nnine-p = nine_p\n")
    return folder


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file, and one more by that of a new QEMU."""
    folder = tmp_path_factory.mktemp("generic")
    installed = install(folder / "installed")
    processes = {name: exported(folder, name, installed) for name in DEVICES}
    words = []
    for name, (_, device) in DEVICES.items():
        words += [*at(name, folder, again=False), "-device", f"{device},chardev={name}"]

    def boot() -> QemuGuest:
        append = "iomem=relaxed"  # /dev/mem has registers that a driver has claimed
        return QemuGuest.boot(lab_kernel, folder, words, qemu=qemu, modules=MODULES, board="q35", append=append)

    with started(list(processes.values())):
        scene = Scene(boot=boot, guest=boot(), processes=processes, folder=folder)
        try:
            yield scene
        finally:
            scene.guest.end()


@pytest.mark.parametrize("name", KINDS)
def test_guest_uses_the_device(scene: Scene, name: str) -> None:
    KINDS[name](scene)


@pytest.mark.parametrize("name", DRIVERS)
def test_driver_leaves_and_comes_back(scene: Scene, name: str) -> None:
    folder = f"/sys/bus/virtio/drivers/{DRIVERS[name]}"
    last = scene.run(f"cd {folder}; ls -d virtio* | tail -n 1")  # the first console is the guest's shell
    scene.run(f"echo {last} > {folder}/unbind; ! [ -e {folder}/{last} ] && echo {last} > {folder}/bind")
    KINDS[name](scene)


def test_guest_that_reboots_finds_its_devices_again(scene: Scene) -> None:
    scene.guest.reboot()
    for works in KINDS.values():
        works(scene)


def test_end_of_a_process_is_the_end_of_its_device_alone(scene: Scene) -> None:
    """This QEMU does not look for the next process of such a device."""
    scene.processes["rng"].kill()
    for name in set(KINDS) - {"rng"}:
        KINDS[name](scene)


def test_new_qemu_finds_the_devices_that_the_killed_one_had(scene: Scene) -> None:
    scene.guest.end()
    if scene.processes["rng"].process is None:
        scene.processes["rng"].start()
    scene.guest = scene.boot()
    for works in KINDS.values():
        works(scene)


def test_table_of_the_page_has_the_numbers_of_our_devices(tmp_path: Path) -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[2:] for row in rows if len(row) == 7}
    (kinds,) = [line for line in PAGE.read_text().splitlines() if line.startswith("| property")]
    for column, kind in enumerate(re.findall(r"`(virtio-\w+)`", kinds)):
        text = next(text for text, _ in DEVICES.values() if text.startswith(kind)).replace("%", str(tmp_path))
        device = make_device(text, make_plugin_manager(), program="test").device
        numbers = device.device_id, len(device.queue_sizes), min(device.queue_sizes), device.config_size
        told = [table[name][column] for name in ("virtio-id", "num_vqs", "vq_size", "config_size")]
        assert [{"2, and 2 for each port": 4}.get(word) or int(word) for word in told] == list(numbers), kind
