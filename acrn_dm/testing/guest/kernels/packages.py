"""Debian packages that are fetched and unpacked, never installed: this host's release's, or another suite's.

Another suite has sources, lists and cache of its own in the guests' home, made from the mirror that this host's apt
has: the host's own sources stay as they are.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.places import exclusive, home

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
STAMP = ".complete"  # written last: a directory without it is a fetch that was interrupted


@attrs.frozen(kw_only=True)
class Apt:
    """apt's tools with *options*. Every call raises HarnessUnavailable that says which tool failed, and why."""

    options: tuple[str, ...] = ()

    def update(self) -> None:
        """Fetch the package lists."""
        run_tool(["apt-get", *self.options, "update", "-qq"])

    def depends(self, package: str) -> list[str]:
        """What *package* depends on, by name; nothing for an unknown one."""
        output = run_tool(["apt-cache", *self.options, "depends", "--important", package])
        return re.findall(r"Depends: ([^\s<]\S*)", output)

    def version(self, package: str) -> str:
        """The version that would be installed."""
        shown = run_tool(["apt-cache", *self.options, "policy", package])
        found = re.search(r"^ *Candidate: (\d\S*)", shown, re.MULTILINE)
        if found is None:
            raise HarnessUnavailable(f"apt knows no package {package}")
        return found[1]

    def unpack(self, package: str, folder: Path) -> None:
        """Download *package* and put its files into *folder*."""
        folder.mkdir(parents=True, exist_ok=True)
        options = ("-qq", "-o", "APT::Sandbox::User=root")
        run_tool(["apt-get", *self.options, "download", *options, package], cwd=folder)
        (archive,) = folder.glob("*.deb")
        run_tool(["dpkg-deb", "-x", str(archive), str(folder)])
        archive.unlink()


def suites() -> Path:
    """The folder of other suites, each with a folder of its own."""
    return home() / "suites"


def suite_apt(suite: str) -> Apt:
    """apt with *suite* and nothing else, its lists fetched once."""
    own = suites() / suite / "apt"
    apt = Apt(options=_private(own))
    if not (own / STAMP).exists():
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        _make(own)
        (own / "sources.list").write_text(f"deb {signed}{mirror()} {suite} main\n")
        apt.update()
        (own / STAMP).touch()
    return apt


def fresh_apt() -> Apt:
    """apt with this host's sources, and package lists of its own that were fetched now."""
    own = home() / "apt"
    _make(own)
    apt = Apt(options=_options(_storage(own)))
    apt.update()
    return apt


def suite_package(suite: str, package: str) -> Path:
    """The files of a package of *suite*, fetched on first use. Remove suites/ to move on to newer ones."""
    with exclusive():
        apt = suite_apt(suite)
        tree = suites() / suite / f"{package}_{apt.version(package)}"
        if not (tree / STAMP).exists():
            shutil.rmtree(tree, ignore_errors=True)
            apt.unpack(package, tree)
            (tree / STAMP).touch()
    return tree


def _make(own: Path) -> None:
    (own / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (own / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)


def _storage(own: Path) -> dict[str, object]:
    return {
        "Dir::State::Lists": own / "lists",
        "Dir::Cache": own / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": 2,
    }


def _private(own: Path) -> tuple[str, ...]:
    sources = {"Dir::Etc::SourceList": own / "sources.list", "Dir::Etc::SourceParts": own / "none"}
    return _options({**sources, **_storage(own), "APT::Architectures": "amd64"})


def _options(settings: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))


def mirror() -> str:
    """Where this host has its own release from."""
    names = ("Created-By: Packages", "Origin: Debian", "Component: main")
    found = run_tool(["apt-get", "indextargets", *names, "--format", "$(REPO_URI) $(LABEL)"])
    for line in found.splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":  # and not Debian-Security
            return uri
    raise HarnessUnavailable("this host's apt has no source of Debian")


def system_tool(name: str) -> str:
    """System tools are in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") or name


def run_tool(argv: list[str], cwd: Path | None = None) -> str:
    """Run a tool; return its output."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise HarnessUnavailable(f"{argv[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise HarnessUnavailable(f"{argv[0]} failed: {error.stderr.strip()[-300:]}") from error
    return done.stdout
