"""The small machine of whoever asks for it."""

import pytest

from lab.kernels.debian import debian_kernel
from lab.outer.vm import OuterVm
from lab.paths import LAB
from tests.lab.machines.small_machine import Rig


@pytest.fixture
def rig(lab: OuterVm, request: pytest.FixtureRequest) -> Rig:
    scratch = LAB / "machine" / request.node.name.replace("/", "_")
    scratch.mkdir(parents=True, exist_ok=True)
    if not lab.alive():
        lab.restart()
    it = Rig(lab, debian_kernel(), scratch)
    it.clean()
    return it
