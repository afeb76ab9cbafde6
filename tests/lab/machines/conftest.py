"""The small machine of whoever asks for it."""

from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import LAB
from tests.lab.machines.small_machine import Rig, Run

Shape = Callable[..., tuple[Rig, Run]]


@pytest.fixture
def rig(lab: OuterVm, request: pytest.FixtureRequest) -> Rig:
    return make_rig(lab, request.node.name)


@pytest.fixture(scope="module")
def shape(lab: OuterVm) -> Shape:
    """Boots a machine with these options once, for all tests that look at one side of it each."""
    booted: dict[tuple[str, ...], tuple[Rig, Run]] = {}

    def boot(*arguments: str, **how: Any) -> tuple[Rig, Run]:
        if arguments not in booted:
            rig = make_rig(lab, "-".join(["shape", *arguments]))
            kernels = {"compressed": str(rig.kernel.image)}
            booted[arguments] = (rig, rig.boot(*(kernels.get(word, word) for word in arguments), **how))
        return booted[arguments]

    return boot


def make_rig(lab: OuterVm, name: str) -> Rig:
    """One with a folder of that name."""
    scratch = LAB / "machine" / name.replace("/", "_")
    scratch.mkdir(parents=True, exist_ok=True)
    if not lab.alive():
        lab.restart()
    it = Rig(lab, debian_kernel(), scratch)
    it.clean()
    return it
