"""A QEMU with a client of vfio-user: this host's where it has one. Where there is no newer one to be had the reason is
said, and nothing half done is taken for it later.
"""

from pathlib import Path

import pytest

from acrn_dm.testing.guest import places, qemu
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.packages import STAMP
from acrn_dm.testing.guest.served.newer import BACKPORTS, LOADER, PACKAGE, NewerQemu, newer_qemu, version, with_client


def _tool(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found before others, and a home that is empty."""
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    return tmp_path / "tools"


def test_no_network_is_said(tools: Path) -> None:
    _tool(
        tools / "apt-get",
        'case "$*" in *indextargets*) echo http://mirror Debian;; *) echo no network >&2; exit 1; esac',
    )
    with pytest.raises(HarnessUnavailable, match=r"^apt-get failed: no network$"):
        newer_qemu()


def test_qemu_without_the_client_is_not_taken(tools: Path, tmp_path: Path) -> None:
    """Twice: what the first time left behind is no QEMU either."""
    package = '*install*) mkdir -p "$cache"; : > "$cache/qemu.deb";;'
    cache = tmp_path / "home" / "suites" / BACKPORTS / "apt-qemu" / "cache" / "archives"
    _tool(tools / "apt-get", f'cache={cache}; case "$*" in *indextargets*) echo http://mirror Debian;; {package} esac')
    loader = f'"$3"/{LOADER}'
    made = f'mkdir -p "$(dirname {loader})"; printf "#!/bin/sh\\necho not a valid device >&2; exit 1\\n" > {loader}'
    _tool(tools / "dpkg-deb", f"{made}; chmod 755 {loader}")
    for _ in range(2):
        with pytest.raises(HarnessUnavailable, match=r"failed: not a valid device$"):
            newer_qemu()
    assert not (tmp_path / "home" / "suites" / BACKPORTS / PACKAGE / STAMP).exists()


def test_this_hosts_qemu_is_taken_where_it_has_the_client(tools: Path) -> None:
    _tool(tools / qemu.PROGRAM, '[ "$*" = "-device vfio-user-pci,help" ] && echo "vfio-user-pci options:"')
    assert with_client() == [str(tools / qemu.PROGRAM)]


@pytest.mark.parametrize("status", [0, 1])
def test_newer_qemu_is_fetched_where_this_hosts_has_no_client(tools: Path, status: int) -> None:
    """QEMU 7.2 says that it does not know the device, and ends with 0."""
    _tool(tools / qemu.PROGRAM, f"echo not found >&2; exit {status}")
    _tool(tools / "apt-get", "echo no network >&2; exit 1")
    with pytest.raises(HarnessUnavailable, match=r"^apt-get failed: no network$"):
        with_client()


def test_version_is_what_it_says(tmp_path: Path) -> None:
    newer = NewerQemu(tree=tmp_path)
    _tool(tmp_path / LOADER, "echo QEMU emulator version 11.1.3 '(Debian 1:11.1.3)'")
    assert version(newer) == "11.1.3"
    _tool(tmp_path / LOADER, "echo no number")
    with pytest.raises(HarnessUnavailable, match="does not say"):
        version(newer)
