"""The environment in which a program finds the emulated HSM, and what the outer VM's clock needs for it."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.testing.guest.places import exclusive
from lab.hsm.build import library
from lab.paths import LAB

LIBRARIES = LAB / "rig"


def environment(scratch: Path, **settings: str) -> dict[str, str]:
    """What preloads the rig, which writes what it sees to rig-report, rig-trace and rig-stats in *scratch*; *settings*
    are the rig's own (see rig.h). Raises RigUnavailable.
    """
    files = {f"RIG_{name.upper()}": str(scratch / f"rig-{name}") for name in ("report", "trace", "stats")}
    return {"LD_PRELOAD": str(shared_library()), **files, **settings}


def shared_library() -> Path:
    """The library where the outer VM sees it as it is now; its name is made from its content."""
    content = library().read_bytes()
    path = LIBRARIES / f"librig-{hashlib.sha256(content).hexdigest()[:16]}.so"
    with exclusive():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_bytes(content)
            partial.rename(path)
    return path


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
