"""The stock Debian kernel both VMs boot: fetched as a package and unpacked below build/lab, never installed."""

import lzma
import re
import shutil
import struct
import subprocess
from pathlib import Path

import attrs

from .errors import LabUnavailable
from .paths import LAB, exclusive

META_PACKAGE = "linux-image-amd64"
KERNELS = LAB / "kernel"
STAMP = ".complete"  # written last: a directory without it is a fetch that was interrupted


@attrs.frozen(kw_only=True)
class Kernel:
    """An unpacked kernel package."""

    version: str  # as in uname -r, for example 6.1.0-40-amd64
    tree: Path  # holds boot/ and lib/modules/, with modules.dep made

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
    """The kernel in build/lab, fetched on first use. Remove build/lab/kernel to move on to a newer one.

    Raises LabUnavailable when it is neither here nor to be had.
    """
    with exclusive():
        kernel = _newest_unpacked()
        return kernel if kernel is not None else _fetch()


def _newest_unpacked() -> Kernel | None:
    stamps = sorted(KERNELS.glob(f"*/{STAMP}"), key=lambda path: path.stat().st_mtime)
    if not stamps:
        return None
    return Kernel(version=stamps[-1].read_text().strip(), tree=stamps[-1].parent)


def _fetch() -> Kernel:
    if shutil.which("apt-get") is None:
        raise LabUnavailable("no Debian kernel: apt-get is not there to fetch one with")
    package = _image_package()
    version = package.removeprefix("linux-image-")
    tree = KERNELS / f"{package}_{_candidate_version(package)}"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    _tool(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=tree)
    (archive,) = tree.glob("*.deb")
    _tool(["dpkg-deb", "-x", str(archive), str(tree)])
    archive.unlink()
    _tool([_sbin("depmod"), "-b", str(tree), version])
    kernel = Kernel(version=version, tree=tree)
    _unpack_image(kernel)
    (tree / STAMP).write_text(version + "\n")
    return kernel


def _unpack_image(kernel: Kernel) -> None:
    """Write boot/vmlinux if the bzImage's payload is xz, as Debian 12's is; the boot protocol's header says where it is
    (kernel: Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length)."""
    image = kernel.image.read_bytes()
    protected_mode = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[protected_mode + offset : protected_mode + offset + length]
    if payload.startswith(b"\xfd7zXZ"):
        # The file's original size follows the xz stream; a decompressor object leaves it alone.
        (kernel.tree / "boot" / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(payload))


def _image_package() -> str:
    """The versioned package that linux-image-amd64 stands for, with the package lists updated if they know none."""
    for refresh in (False, True):
        if refresh:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        output = subprocess.run(
            ["apt-cache", "depends", "--important", META_PACKAGE], capture_output=True, text=True, check=False
        ).stdout
        found = re.search(r"Depends: (linux-image-\d\S+)", output)
        if found:
            return found[1]
    raise LabUnavailable(f"no Debian kernel: apt knows no package {META_PACKAGE}")


def _candidate_version(package: str) -> str:
    found = re.search(r"^Version: (\S+)", _tool(["apt-cache", "show", "--no-all-versions", package]), re.MULTILINE)
    if found is None:
        raise LabUnavailable(f"no Debian kernel: apt knows no version of {package}")
    return found[1]


def _sbin(name: str) -> str:
    """System tools are in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") or name


def _tool(argv: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise LabUnavailable(f"no Debian kernel: {argv[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise LabUnavailable(f"no Debian kernel: {argv[0]} failed: {error.stderr.strip()[-300:]}") from error
    return done.stdout


def module_files(kernel: Kernel, names: list[str]) -> list[Path]:
    """The modules of these names and those they need, each once, in the order to load them in."""
    files: dict[Path, None] = {}
    for name in names:
        argv = [_sbin("modprobe"), "--show-depends", "-d", str(kernel.tree), "-S", kernel.version, name]
        for line in _tool(argv).splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "insmod":
                files[Path(rest.rstrip())] = None
    return list(files)
