"""Whether this host's KVM can be used, and well."""

import os
import re
from pathlib import Path

DEVICE = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")


def unusable(device: Path) -> str | None:
    """Say in one line why *device* can't be opened; None if it can."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"no {device}: load kvm_intel or kvm_amd, and enable virtualization in the firmware"
    except PermissionError:
        return f"no permission to open {device}: join the group that owns it"
    except OSError as e:
        return f"opening {device}: {e.strerror}"
    return None


def slow(cpuinfo: Path) -> str | None:
    """Say in one line why KVM runs guests slowly here, as *cpuinfo* tells; None if it does not."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return None  # without /proc nobody can tell
    if flags is None or {"vmx", "svm"} & set(flags[1].split()):
        return None
    return "host CPU flags show neither vmx nor svm (KVM would run stock kernels by instruction emulation: hours)"


def probe(device: Path = DEVICE, cpuinfo: Path = CPUINFO) -> str | None:
    """Say in one line why KVM can't be used here; None if it can."""
    return unusable(device) or slow(cpuinfo)
