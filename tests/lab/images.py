"""The two initramfs: the outer VM's, which goes on to this host's file tree, and the inner guest's, which stays."""

import hashlib
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cpio
from .errors import LabUnavailable
from .kernel import Kernel, module_files
from .paths import GUEST_SCRIPTS, LAB, ROOT

IMAGES = LAB / "images"
OUTER_MODULES = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "kvm-amd",
    "tun",
    "vhost_net",
    "vhost_vsock",
    "loop",
]
GUEST_MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng"]
AGENT_PORT = "lab.agent"


def outer_initramfs(kernel: Kernel) -> Path:
    """Loads what the lab needs and hands over to agent.py on the host's file tree, run by this very Python."""
    agent = [os.path.realpath(sys.executable), "-I", "-S", str(Path(__file__).with_name("agent.py")), AGENT_PORT]
    settings = {
        "LAB": str(LAB),
        "AGENT": shlex.join(agent),
        "TMPFS": " ".join(_hideable(["/tmp", "/run"])),
    }
    entries = [
        *_base((GUEST_SCRIPTS / "outer-init.sh").read_text()),
        *_modules(kernel, OUTER_MODULES),
        cpio.file("lab/settings", _shell_assignments(settings)),
    ]
    return _store("outer", entries)


def guest_initramfs(
    kernel: Kernel,
    *,
    init: str,
    modules: Sequence[str] = GUEST_MODULES,
    settings: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    programs: Sequence[str] = (),
    lspci: bool = False,
) -> Path:
    """A guest's whole user space: busybox, these modules, and ``init`` as a busybox shell script.

    The script finds busybox's commands in /bin, the modules in /modules with the order to load them in /lab/modules,
    ``settings`` as shell assignments in /lab/settings and ``files`` by their path; ``programs`` of this host in
    /bin, and with ``lspci`` that one. The same arguments give the same file, made once.
    """
    entries = [
        *_base(init),
        *_modules(kernel, list(modules)),
        cpio.file("lab/settings", _shell_assignments(settings or {})),
        *(cpio.file(path.lstrip("/"), content, 0o755) for path, content in (files or {}).items()),
        *_programs([*programs, *(["lspci"] if lspci else [])]),
        *(_pci_names() if lspci else []),
    ]
    return _store("guest", entries)


def guest_script(name: str) -> str:
    """A guest's init: the script of that name in guest/, behind the functions that all of them share."""
    return (GUEST_SCRIPTS / "common.sh").read_text() + (GUEST_SCRIPTS / f"{name}.sh").read_text()


def _base(init: str) -> list[cpio.Entry]:
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    if busybox is None:
        raise LabUnavailable("busybox is not installed (package busybox-static)")
    mount_points = ["proc", "sys", "dev", "tmp", "run", "root", "etc"]
    return [
        *(cpio.directory(path) for path in mount_points),
        cpio.file("bin/busybox", Path(busybox).read_bytes(), 0o755),
        cpio.symlink("bin/sh", "busybox"),
        cpio.file("init", init.encode(), 0o755),
    ]


def _modules(kernel: Kernel, names: list[str]) -> list[cpio.Entry]:
    """The module files, unpacked where the package has them compressed, for busybox's insmod loads plain ones only."""
    entries = []
    for path in module_files(kernel, names):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        entries.append(cpio.file(f"modules/{path.name.removesuffix('.xz')}", content))
    order = "".join(f"{Path(entry.path).name}\n" for entry in entries)
    return [*entries, cpio.file("lab/modules", order.encode())]


PACKAGES = {"lspci": "pciutils"}  # where the program is not the package's name


def _programs(names: Sequence[str]) -> list[cpio.Entry]:
    """Programs of this host and the libraries they need."""
    entries = []
    libraries = set()
    for name in names:
        program = shutil.which(name, path="/usr/bin:/sbin:/usr/sbin:/bin")
        if program is None:
            raise LabUnavailable(f"{name} is not installed (package {PACKAGES.get(name, name)})")
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", linked))
        entries.append(cpio.file(f"bin/{name}", Path(program).read_bytes(), 0o755))
    return entries + [cpio.file(path.lstrip("/"), Path(path).read_bytes(), 0o755) for path in sorted(libraries)]


def _pci_names() -> list[cpio.Entry]:
    names = Path("/usr/share/misc/pci.ids")
    if not names.exists():
        raise LabUnavailable("lspci has no names (package pciutils)")
    return [cpio.file("usr/share/misc/pci.ids", names.read_bytes())]


def _shell_assignments(settings: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()).encode()


def _hideable(directories: list[str]) -> list[str]:
    """Those that a fresh tmpfs may cover: neither this checkout nor this Python lives below them."""
    needed = [ROOT, Path(sys.prefix), Path(sys.base_prefix), Path(os.path.realpath(sys.executable))]
    return [path for path in directories if not any(need.is_relative_to(path) for need in needed)]


def _store(kind: str, entries: list[cpio.Entry]) -> Path:
    """Write the archive under a name made from its content, unless it is there already."""
    content = cpio.archive(entries)
    path = IMAGES / f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}.cpio"
    if not path.exists():
        IMAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=IMAGES, delete=False) as partial:
            partial.write(content)
        Path(partial.name).chmod(0o644)
        Path(partial.name).rename(path)
    return path
