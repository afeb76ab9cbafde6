"""The environment in which a program finds the emulated HSM, and what the outer VM's clock needs for it."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.hsm.build import library

LIBRARY = "librig.so"


def environment(scratch: Path, **settings: str) -> dict[str, str]:
    """What preloads the rig, which writes what it sees to rig-report, rig-trace and rig-stats in *scratch*; *settings*
    are the rig's own (see rig.h). Raises RigUnavailable.
    """
    preload = shutil.copy(library(), scratch / LIBRARY)
    files = {f"RIG_{name.upper()}": str(scratch / f"rig-{name}") for name in ("report", "trace", "stats")}
    return {"LD_PRELOAD": str(preload), **files, **settings}


def assignments(environment: Mapping[str, str]) -> list[str]:
    """The same as words for ``env``."""
    return [f"{name}={value}" for name, value in environment.items()]


def tsc_frequency(lab: OuterVm) -> str:
    """A port access takes 0.25 ms in emulation below emulation; the kernel's own calibration puts up with 0.02 ms at
    most (arch/x86/kernel/tsc.c, SMI_TRESHOLD), and without its TSC it reads the ACPI timer tens of thousands of times.
    """
    found = re.search(r"tsc: Detected ([0-9.]+) MHz", lab.run(["dmesg"]).stdout)
    assert found is not None
    return f"tsc_early_khz={round(float(found[1]) * 1000)}"
