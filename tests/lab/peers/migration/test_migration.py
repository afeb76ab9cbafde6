"""A stock guest that moves from one QEMU to another and back, busy with a card and a disk of ours: no page of its
memory is missed, and it goes on. As often as ACRN_DM_MOVES says.

It is the newer QEMU: under load 7.2 loses pages that its emulated processors write, of guests with none of our devices,
too.
"""

import os
import random
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.backends.user.user_rig import Daemon
from tests.docs.page_runner import ROOT, lines_for
from tests.lab.peers.exports import export, started
from tests.lab.peers.migration.moves import Place, Scene, busy_guest
from tests.lab.peers.migration.network import network
from tests.lab.peers.qmp import Qmp

pytestmark = pytest.mark.lab
MOVES = int(os.environ.get("ACRN_DM_MOVES", "2"))
MIB = 1 << 20
PAGE = ROOT / "docs" / "how-to" / "exporting" / "qemu.md"
# Rings so long that there are pages which the device alone writes.
SIZES = "rx_queue_size=1024,tx_queue_size=1024"


def place(folder: Path, tap: str, image: Path, *, packed: bool) -> Place:
    """As on the page, with other files and the rings to be tested."""
    folder.mkdir()
    lines = lines_for(PAGE.read_text(), "tests/lab/peers/migration/test_migration.py")
    named = {"/run/there": folder, "tap1": tap, "/srv/disk.img": image}
    for name, here in named.items():
        lines = [line.replace(name, str(here)) for line in lines]
    ours, theirs = map(shlex.split, lines)
    devices = theirs[theirs.index("-chardev") : theirs.index("-incoming")]
    rings = f",packed={'on' if packed else 'off'}"
    devices = [word + (rings if word.startswith(("virtio-net-pci", "vhost-user-blk-pci")) else "") for word in devices]
    devices = [f"{word},{SIZES}" if word.startswith("virtio-net-pci") else word for word in devices]
    argv = [sys.executable, "-m", "acrn_dm.export.cli", *(word for word in ours[1:] if word != "&")]
    return Place(folder, Daemon(argv, folder / "disk.sock", folder / "log"), devices)


@pytest.fixture(scope="module", params=[False, True], ids=["split", "packed"])
def scene(
    lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("migration")
    image = folder / "image"
    image.write_bytes(random.Random(3).randbytes(8 * MIB))
    with network(2) as (names, station):
        places = [place(folder / f"p{n}", tap, image, packed=request.param) for n, tap in enumerate(names)]
        with (
            started([place.daemon for place in places]),
            busy_guest(qemu, lab_kernel, image, places, station) as scene,
        ):
            yield scene


@pytest.mark.parametrize("number", range(MOVES))
def test_guest_moves_and_no_page_is_missed(scene: Scene, number: int) -> None:
    announced = scene.station.announced
    move = scene.move()
    print(f"move {number}: {move}")  # pytest's -rP shows it
    assert move.different == []
    assert move.echoes > 0, "the guest was not busy"
    assert scene.echoes(200)
    assert scene.reads()
    assert scene.writes()
    assert scene.station.wrong == []
    assert scene.station.announced > announced


def test_generic_device_is_not_moved_by_qemu(qemu: Sequence[str], tmp_path: Path) -> None:
    """As the page says: it is not ours that refuses."""
    device = "vhost-user-test-device-pci,chardev=c,virtio-id=3,num_vqs=4,vq_size=64,config_size=12"
    words = [
        "-m",
        "64M",
        "-object",
        "memory-backend-memfd,id=ram,size=64M,share=on",
        "-machine",
        "q35,memory-backend=ram",
    ]
    console = export(tmp_path, "c", f"virtio-console,file:port0={tmp_path / 'out'}")
    here = Place(tmp_path, console, ["-chardev", f"socket,id=c,path={console.socket}", "-device", device])
    with started([console]):
        here.start([*qemu, "-nodefaults", "-display", "none", "-accel", "tcg", "-S", *words])
        try:
            assert isinstance(here.monitor, Qmp)
            blocked = here.monitor.run("query-migrate").get("blocked-reasons")
        finally:
            here.end()
    assert blocked == ["non-migratable device: 0000:00:01.0/vhost-user-test-device"]
