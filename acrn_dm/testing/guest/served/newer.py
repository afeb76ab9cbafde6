"""A QEMU that has a vfio-user client (from 10.1 on): this host's, or one of Debian's backports that is unpacked in the
guests' home and never installed.

That one needs that suite's C library, so it is started by that library's own loader. Backports vanish when newer ones
come: what is unpacked is kept, and where there is nothing to be had, that is said.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from acrn_dm.testing.guest import progress, qemu
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.packages import KEYRING, STAMP, mirror, run_tool
from acrn_dm.testing.guest.places import exclusive, home

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"
PACKAGE = "qemu-system-x86"
LOADER, LIBRARIES = "usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"
PROGRAM = "usr/bin/qemu-system-x86_64"
FIRMWARE = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
CLIENT = "vfio-user-pci"


@attrs.frozen(kw_only=True)
class NewerQemu:
    """An unpacked QEMU."""

    tree: Path

    @property
    def argv(self) -> list[str]:
        """The words that start it, before its options."""
        loader = [str(self.tree / LOADER), "--library-path", str(self.tree / LIBRARIES), str(self.tree / PROGRAM)]
        return loader + [word for folder in FIRMWARE for word in ("-L", str(self.tree / folder))]


def with_client() -> list[str]:
    """The words that start a QEMU with a client of vfio-user: this host's, if it has one. Raises HarnessUnavailable."""
    with contextlib.suppress(HarnessUnavailable):
        own = [qemu.program()]
        if _has_client(own):
            return own
    with progress.step("fetching a QEMU that has a client of vfio-user"):
        return newer_qemu().argv


def newer_qemu() -> NewerQemu:
    """The one in the guests' home, fetched on first use. Remove suites/ in there to move on to a newer one.

    Raises HarnessUnavailable when it is neither here nor to be had, or has no client of vfio-user.
    """
    own = home() / "suites" / BACKPORTS
    newer = NewerQemu(tree=own / PACKAGE)
    with exclusive():
        if not (newer.tree / STAMP).exists():
            shutil.rmtree(newer.tree, ignore_errors=True)
            for archive in _downloaded(own / "apt-qemu"):
                run_tool(["dpkg-deb", "-x", str(archive), str(newer.tree)])
                archive.unlink()
            if not _has_client(newer.argv):
                raise HarnessUnavailable(f"the QEMU of {BACKPORTS} has no {CLIENT}")
            (newer.tree / STAMP).touch()
    return newer


def version(newer: NewerQemu) -> str:
    """As it says it itself."""
    found = re.search(r"version (\S+)", run_tool([*newer.argv, "--version"]))
    if found is None:
        raise HarnessUnavailable("QEMU does not say which version it is")
    return found[1]


def _has_client(argv: Sequence[str]) -> bool:
    """Whether it knows the device: QEMU 7.2 ends with 0 for one that it doesn't know. Raises HarnessUnavailable."""
    return f"{CLIENT} options" in run_tool([*argv, "-device", f"{CLIENT},help"])


def _downloaded(own: Path) -> Iterator[Path]:
    """The package and all that it needs; *own*: where apt has everything of its own, an empty host's state, too."""
    options = _private(own)
    run_tool(["apt-get", *options, "update", "-qq"])
    wanted = ("-qq", "-y", "--download-only", "--no-install-recommends", "-t", BACKPORTS)
    run_tool(["apt-get", *options, "install", *wanted, PACKAGE])
    yield from sorted((own / "cache" / "archives").glob("*.deb"))


def _private(own: Path) -> list[str]:
    for folder in ("lists/partial", "cache/archives/partial", "none"):
        (own / folder).mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    lines = [f"deb {signed}{mirror()} {suite} main\n" for suite in (SUITE, BACKPORTS)]
    (own / "sources.list").write_text("".join(lines))
    (own / "status").write_text("")
    settings = {
        "Dir::Etc::SourceList": own / "sources.list",
        "Dir::Etc::SourceParts": own / "none",
        "Dir::State": own,
        "Dir::State::Lists": own / "lists",
        "Dir::State::status": own / "status",
        "Dir::Cache": own / "cache",
        "APT::Sandbox::User": "root",
        "APT::Architectures": "amd64",
        "APT::Keep-Downloaded-Packages": "true",
        "Acquire::Languages": "none",
        "Acquire::Retries": 2,
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
