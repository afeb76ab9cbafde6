"""One guest for all tests of this folder."""

from collections.abc import Iterator

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.lab.peers.cards.cards_scene import Scene, stage


@pytest.fixture(scope="package")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with stage(lab_kernel, qemu, tmp_path_factory.mktemp("cards")) as made:
        yield made
