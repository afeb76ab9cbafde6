"""A stock guest that moves from one QEMU to another and back, busy with a card and a disk of ours: no page of its
memory is missed, and it goes on.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.lab.peers.migration.moves import Place, Scene, busy_guest
from tests.lab.peers.migration.network import GUEST_MAC, network
from tests.lab.peers.qemu_guest import export, started

pytestmark = pytest.mark.lab
MOVES = int(os.environ.get("ACRN_DM_MOVES", "2"))
MIB = 1 << 20


def place(folder: Path, tap: str, image: Path, *, packed: bool) -> Place:
    folder.mkdir()
    card = export(folder, "card", f"virtio-net,tap={tap},mac={GUEST_MAC}")
    disk = export(folder, "disk", f"virtio-blk,{image},share=on")
    return Place(folder, [card, disk], packed)


@pytest.fixture(scope="module", params=[False, True], ids=["split", "packed"])
def scene(
    lab_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("migration")
    image = folder / "image"
    image.write_bytes(random.Random(3).randbytes(8 * MIB))
    with network(2) as (names, station):
        packed = request.param
        places = [place(folder / name, tap, image, packed=packed) for name, tap in zip("ab", names, strict=True)]
        with (
            started([daemon for place in places for daemon in place.daemons]),
            busy_guest(lab_kernel, image, places, station) as scene,
        ):
            yield scene


@pytest.mark.parametrize("number", range(MOVES))
def test_guest_moves_and_no_page_is_missed(scene: Scene, number: int) -> None:
    announced = scene.station.announced
    assert scene.move() == []
    assert scene.echoes(200)
    assert scene.reads()
    assert scene.writes()
    assert scene.station.wrong == []
    assert scene.station.announced > announced
