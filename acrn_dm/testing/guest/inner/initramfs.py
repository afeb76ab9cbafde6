"""A guest's initramfs, which is its whole user space."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from acrn_dm.testing.guest.images import cpio, initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel

GUEST_MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng"]
HERE = Path(__file__).resolve().parent
SHELL = HERE / "shell.sh"


def guest_initramfs(
    kernel: Kernel,
    *,
    init: str,
    modules: Sequence[str] = GUEST_MODULES,
    settings: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    programs: Sequence[str] = (),
    lspci: bool = False,
    behind: bytes = b"",
) -> Path:
    """A guest's whole user space: busybox, these modules, and ``init`` as a busybox shell script.

    The script finds busybox's commands in /bin, the modules in /modules with the order to load them in /lab/modules,
    ``settings`` as shell assignments in /lab/settings and ``files`` by their path; ``programs`` of this host in
    /bin, and with ``lspci`` that one; ``behind`` is another archive with further files. The same arguments give the
    same file, made once.
    """
    entries = [
        *initramfs.base(init),
        *initramfs.modules(kernel, modules),
        initramfs.settings(settings or {}),
        *(cpio.file(path.lstrip("/"), content, 0o755) for path, content in (files or {}).items()),
        *initramfs.programs([*programs, *(["lspci"] if lspci else [])]),
        *(initramfs.pci_names() if lspci else []),
    ]
    return initramfs.store("guest", entries, behind=behind)


def guest_init(script: Path | None = None) -> str:
    """A guest's init: that script behind the functions that all of them share; or those alone."""
    return (HERE / "common.sh").read_text() + (script.read_text() if script else "")
