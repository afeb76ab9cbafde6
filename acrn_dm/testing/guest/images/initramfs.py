"""The parts of an initramfs: busybox and an init, kernel modules, programs of this host; where it is kept."""

import hashlib
import lzma
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.images import cpio
from acrn_dm.testing.guest.kernels.debian import Kernel, module_files
from acrn_dm.testing.guest.places import home

PACKAGES = {"lspci": "pciutils"}  # where the program is not the package's name


def base(init: str) -> list[cpio.Entry]:
    """Busybox, mount points, and *init*. Raises HarnessUnavailable."""
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        raise HarnessUnavailable("busybox is not installed (package busybox-static)")
    mount_points = ["proc", "sys", "dev", "tmp", "run", "root", "etc"]
    return [
        *(cpio.directory(path) for path in mount_points),
        cpio.file("bin/busybox", Path(busybox).read_bytes(), 0o755),
        cpio.symlink("bin/sh", "busybox"),
        cpio.file("init", init.encode(), 0o755),
    ]


def modules(kernel: Kernel, names: Sequence[str]) -> list[cpio.Entry]:
    """The module files in /modules, unpacked where the package has them compressed, for busybox's insmod loads plain
    ones only; and in /lab/modules the order to load them in."""
    entries = []
    for path in module_files(kernel, names):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        entries.append(cpio.file(f"modules/{path.name.removesuffix('.xz')}", content))
    order = "".join(f"{Path(entry.path).name}\n" for entry in entries)
    return [*entries, cpio.file("lab/modules", order.encode())]


def programs(names: Sequence[str]) -> list[cpio.Entry]:
    """Programs of this host in /bin, and the libraries they need. Raises HarnessUnavailable."""
    entries = []
    libraries = set()
    for name in names:
        program = shutil.which(name, path="/usr/bin:/sbin:/usr/sbin:/bin")
        if program is None:
            raise HarnessUnavailable(f"{name} is not installed (package {PACKAGES.get(name, name)})")
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", linked))
        entries.append(cpio.file(f"bin/{name}", Path(program).read_bytes(), 0o755))
    return entries + [cpio.file(path.lstrip("/"), Path(path).read_bytes(), 0o755) for path in sorted(libraries)]


def pci_names() -> list[cpio.Entry]:
    """What lspci calls vendors and devices by. Raises HarnessUnavailable."""
    names = Path("/usr/share/misc/pci.ids")
    if not names.exists():
        raise HarnessUnavailable("lspci has no names (package pciutils)")
    return [cpio.file("usr/share/misc/pci.ids", names.read_bytes())]


def settings(values: Mapping[str, str]) -> cpio.Entry:
    """Shell assignments in /lab/settings."""
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return cpio.file("lab/settings", lines.encode())


def store(kind: str, entries: list[cpio.Entry]) -> Path:
    """The archive's file, under a name made from its content; written unless it is there already."""
    content = cpio.archive(entries)
    path = home() / "images" / f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}.cpio"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(content)
        Path(partial.name).chmod(0o644)
        Path(partial.name).rename(path)
    return path
