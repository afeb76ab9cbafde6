"""The emulated HSM around programs in the outer VM, for test files of whatever subject."""

import re
import shutil
from pathlib import Path

import pytest

from tests.lab.kernel import debian_kernel
from tests.lab.paths import LAB
from tests.lab.test_hsm import Hsm, Preloading, tsc_frequency
from tests.lab.test_machine import Rig
from tests.lab.vm import OuterVm
from tests.rig.build import RigUnavailable, library


def empty_scratch(folder: str, request: pytest.FixtureRequest) -> Path:
    """An empty folder of the test's own below build/lab."""
    scratch = LAB / folder / re.sub(r"\W+", "-", request.node.name)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def rig_in(scratch: Path) -> dict[str, str]:
    """The environment in which a program finds the emulated HSM, which writes what it sees into *scratch*."""
    try:
        preload = shutil.copy(library(), scratch / "librig.so")
    except RigUnavailable as e:
        pytest.skip(str(e))
    files = {f"RIG_{name.upper()}": str(scratch / f"rig-{name}") for name in ("report", "trace", "stats")}
    return {"LD_PRELOAD": str(preload), **files}


def small_machine(lab: OuterVm, scratch: Path) -> Hsm:
    """The small machine of the other lab tests, on the emulated HSM."""
    if not lab.alive():
        lab.restart()
    rig = Rig(Preloading(lab, rig_in(scratch)), debian_kernel(), scratch)  # type: ignore[arg-type]
    return Hsm(rig, scratch, tsc_frequency(lab))
