"""A line to skip with: what this host lacks for guests."""

import os
import platform
import shutil
from collections.abc import Mapping

from acrn_dm.testing.guest import qemu
from acrn_dm.testing.guest.places import home

# Programs by the Debian package that has them.
TOOLS = {"busybox": "busybox-static", "modprobe": "kmod", "depmod": "kmod"}
FETCHING = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}
EMULATION = {qemu.PROGRAM: "qemu-system-x86"}
PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))


def missing(*, emulated: bool) -> str | None:
    """What is missing, as a line; None if nothing is. *emulated* is without a KVM that is fit for it.

    Whether a kernel can be had is not known before it is fetched.
    """
    if platform.machine() != "x86_64":
        return f"guests are for x86_64, and this is {platform.machine()}"
    needed = {**TOOLS, **(EMULATION if emulated else {}), **({} if _has_kernel() else FETCHING)}
    return line(needed)


def line(needed: Mapping[str, str]) -> str | None:
    """The programs of *needed* that are not here, and how they are had; None if all are."""
    path = os.pathsep.join((os.environ.get("PATH", ""), PATH))
    absent = [name for name in needed if shutil.which(name, path=path) is None]
    if not absent:
        return None
    packages = " ".join(sorted({needed[name] for name in absent}))
    return f"no guest without {', '.join(absent)}: apt-get install {packages}"


def _has_kernel() -> bool:
    return any((home() / "kernel").glob("*/boot"))
