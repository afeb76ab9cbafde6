"""Stock Debian kernels: fetched as packages and unpacked in the guests' home, never installed.

Both VMs boot that of this host's release; guests also those of other suites.
"""

import lzma
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest import progress
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels import sums
from acrn_dm.testing.guest.kernels.packages import STAMP, Apt, fresh_apt, run_tool, suite_apt, suites, system_tool
from acrn_dm.testing.guest.places import exclusive, home

META_PACKAGE = "linux-image-amd64"
# Magic number of a compressed payload, and what unpacks it; None: the standard library.
_XZ, _ZSTD = b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"


@attrs.frozen(kw_only=True)
class Kernel:
    """An unpacked kernel package."""

    version: str  # as in uname -r, for example 6.1.0-40-amd64
    tree: Path  # holds boot/ and lib/modules/, with modules.dep made

    def read(self, path: Path) -> bytes:
        """The content of a file of it. Raises HarnessError when that is not what was unpacked."""
        return sums.read(self.tree, path)

    @property
    def image(self) -> Path:
        """The bzImage."""
        return self.tree / "boot" / f"vmlinuz-{self.version}"

    @property
    def quick_image(self) -> Path:
        """The uncompressed kernel where there is one, which QEMU enters by PVH: saves seconds of emulated unpacking."""
        vmlinux = self.tree / "boot" / "vmlinux"
        return vmlinux if vmlinux.exists() else self.image


def debian_kernel() -> Kernel:
    """The kernel in the guests' home, fetched on first use. Remove kernel/ in there to move on to a newer one.

    Raises HarnessUnavailable when it is neither here nor to be had.
    """
    kernels = home() / "kernel"
    with exclusive():
        kernel = _newest_unpacked(kernels)
        return kernel if kernel is not None else _fetch(kernels, *_image_package())


def suite_kernel(suite: str) -> Kernel:
    """The newest kernel of another suite, as ``debian_kernel``; remove suites/ in there to move on to newer ones."""
    kernels = suites() / suite / "kernel"
    with exclusive():
        kernel = _newest_unpacked(kernels)
        if kernel is not None:
            return kernel
        apt = suite_apt(suite)
        package = _versioned(apt)
        if package is None:
            raise HarnessUnavailable(f"no kernel of {suite}: it has no package {META_PACKAGE}")
        return _fetch(kernels, apt, package)


def _newest_unpacked(kernels: Path) -> Kernel | None:
    stamps = sorted(kernels.glob(f"*/{STAMP}"), key=lambda path: path.stat().st_mtime)
    for stamp in reversed(stamps):
        kernel = Kernel(version=stamp.read_text().strip(), tree=stamp.parent)
        if sums.intact(kernel.tree, [kernel.image, kernel.quick_image]):
            return kernel
    return None


def _fetch(kernels: Path, apt: Apt, package: str) -> Kernel:
    version = package.removeprefix("linux-image-")
    tree = kernels / f"{package}_{apt.version(package)}"
    shutil.rmtree(tree, ignore_errors=True)
    parts = [
        name
        for name in apt.depends(package)
        if re.fullmatch(rf"linux-(base|binary|modules)-{re.escape(version)}", name)
    ]
    for part in (package, *parts):  # from 6.16 on the kernel and its modules are packages of their own
        with progress.step(f"fetching {part}, into {kernels}"):
            apt.unpack(part, tree)
    _in_one_place(tree, version)
    run_tool([system_tool("depmod"), "-b", str(tree), version])
    kernel = Kernel(version=version, tree=tree)
    with progress.step(f"unpacking {kernel.image.name}"):
        _unpack_image(kernel)
        sums.write(tree, ["boot/*", "lib/modules/**/*.ko*"])
    (tree / STAMP).write_text(version + "\n")
    return kernel


def _in_one_place(tree: Path, version: str) -> None:
    """Have modules in lib/modules and the kernel in boot/, wherever the release has them."""
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    among_modules = tree / "lib" / "modules" / version / "vmlinuz"
    if among_modules.exists():
        (tree / "boot").mkdir(exist_ok=True)
        among_modules.rename(tree / "boot" / f"vmlinuz-{version}")


def _unpack_image(kernel: Kernel) -> None:
    """Write boot/vmlinux where the bzImage's payload can be unpacked here; the boot protocol's header says where it is
    (kernel: Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length)."""
    image = kernel.image.read_bytes()
    protected_mode = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[protected_mode + offset : protected_mode + offset + length - 4]  # behind it: the original's size
    vmlinux = kernel.tree / "boot" / "vmlinux"
    if payload.startswith(_XZ):
        vmlinux.write_bytes(lzma.decompress(payload))
    elif payload.startswith(_ZSTD) and shutil.which("zstd"):
        with vmlinux.open("wb") as file:
            subprocess.run(["zstd", "-dcq"], input=payload, stdout=file, check=True)


def _image_package() -> tuple[Apt, str]:
    """The versioned package of this host's release, and the apt that knows it: one with lists of our own where the
    host's lists know none."""
    apt = Apt()
    package = _versioned(apt)
    if package is None:
        with progress.step("fetching apt's package lists"):
            apt = fresh_apt()
        package = _versioned(apt)
    if package is None:
        raise HarnessUnavailable(f"no Debian kernel: apt knows no package {META_PACKAGE}")
    return apt, package


def _versioned(apt: Apt) -> str | None:
    """The package that linux-image-amd64 stands for."""
    try:
        names = apt.depends(META_PACKAGE)
    except HarnessUnavailable:  # before the first update apt-cache fails for it
        return None
    return next((name for name in names if re.match(r"linux-image-\d", name)), None)


def module_files(kernel: Kernel, names: Sequence[str]) -> list[Path]:
    """The modules of these names and those they need, each once, in the order to load them in; a kernel may have some
    built in.
    """
    files: dict[Path, None] = {}
    for name in names:
        argv = [system_tool("modprobe"), "--show-depends", "-d", str(kernel.tree), "-S", kernel.version, name]
        for line in run_tool(argv).splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "insmod":
                files[Path(rest.rstrip())] = None
    return list(files)
