"""The parts of an initramfs: busybox and an init, kernel modules, programs of this host; where it is kept."""

import contextlib
import hashlib
import lzma
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.images import cpio
from acrn_dm.testing.guest.kernels.debian import Kernel, module_files
from acrn_dm.testing.guest.places import home

FORGOTTEN_S = 30 * 86400.0
PACKAGES = {"lspci": "pciutils"}  # where the program is not the package's name


def base(init: str) -> list[cpio.Entry]:
    """Busybox, mount points, and *init*. Raises HarnessUnavailable."""
    mount_points = ["proc", "sys", "dev", "tmp", "run", "root", "etc"]
    return [
        *(cpio.directory(path) for path in mount_points),
        cpio.file("bin/busybox", busybox().read_bytes(), 0o755),
        *libraries([busybox()]),  # Debian has a package of it with some, besides busybox-static
        cpio.symlink("bin/sh", "busybox"),
        cpio.file("init", init.encode(), 0o755),
    ]


def busybox() -> Path:
    """The program. Raises HarnessUnavailable."""
    found = shutil.which("busybox", path="/bin:/usr/bin")
    if found is None:
        raise HarnessUnavailable("busybox is not installed (package busybox-static)")
    return Path(found)


def modules(kernel: Kernel, names: Sequence[str]) -> list[cpio.Entry]:
    """The module files in /modules, unpacked where the package has them compressed, for busybox's insmod loads plain
    ones only; and in /lab/modules the order to load them in."""
    entries = []
    for path in module_files(kernel, names):
        content = kernel.read(path)
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        entries.append(cpio.file(f"modules/{path.name.removesuffix('.xz')}", content))
    order = "".join(f"{Path(entry.path).name}\n" for entry in entries)
    return [*entries, cpio.file("lab/modules", order.encode())]


def programs(names: Sequence[str]) -> list[cpio.Entry]:
    """Programs of this host in /bin, and the libraries they need. Raises HarnessUnavailable."""
    found = []
    for name in names:
        program = shutil.which(name, path="/usr/bin:/sbin:/usr/sbin:/bin")
        if program is None:
            raise HarnessUnavailable(f"{name} is not installed (package {PACKAGES.get(name, name)})")
        found.append(Path(program))
    return [*(cpio.file(f"bin/{path.name}", path.read_bytes(), 0o755) for path in found), *libraries(found)]


def libraries(files: Sequence[Path]) -> list[cpio.Entry]:
    """The shared libraries that programs and extension modules need, with what loads them, where this host has them."""
    if not files:
        return []
    # ldd fails for what is linked statically, and says so.
    linked = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    paths = sorted(set(re.findall(r"(/\S+) \(0x", linked)))
    return [cpio.file(path.lstrip("/"), Path(path).read_bytes(), 0o755) for path in paths]


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


def store(kind: str, entries: list[cpio.Entry], *, behind: bytes = b"") -> Path:
    """The archive's file, under a name made from its content; written unless it is there already. *behind* is another
    archive, whose files the kernel unpacks after these."""
    content = cpio.archive(entries) + behind
    path = home() / "images" / f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}.cpio"
    if path.exists():
        path.touch()
    else:
        keep(path, content)
    return path


def keep(path: Path, content: bytes) -> None:
    """Write an image, whole or not at all, and remove images that nobody has asked for in a month."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
        partial.write(content)
    Path(partial.name).chmod(0o644)
    Path(partial.name).rename(path)
    for other in path.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if other.stat().st_mtime < time.time() - FORGOTTEN_S:
                other.unlink()
