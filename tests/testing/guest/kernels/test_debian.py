"""The kernel is fetched once, and anew when what is here is damaged; with an apt that is none."""

import struct
import subprocess
from pathlib import Path

import pytest

from acrn_dm.testing.guest import places
from acrn_dm.testing.guest.errors import HarnessUnavailable
from acrn_dm.testing.guest.kernels.debian import debian_kernel

PACKAGE = "linux-image-6.1.0-1-amd64"
# It keeps what it was called with in the file log, and knows no kernel while there is a file "unknown".
APT = """#!/bin/sh
echo "${0##*/} $*" >> "$APT_HOME/log"
case "$*" in
    *"depends --important linux-image-amd64") [ ! -e "$APT_HOME/unknown" ] && echo "  Depends: PACKAGE" ;;
    *"depends --important"*) echo "  Depends: kmod" ;;
    *policy*) echo "  Candidate: 6.1.176-1" ;;
    *update*) rm -f "$APT_HOME/unknown" 2> /dev/null || true ;;
    *download*) cp "$APT_HOME/package.deb" . ;;
esac
""".replace("PACKAGE", PACKAGE)


def package(home: Path) -> None:
    """A package of a kernel that has no payload, and no modules."""
    tree = home / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: p\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\nDescription: kernel\n"
    )
    (tree / "boot").mkdir()
    image = bytearray(0x300)
    image[0x248:0x250] = struct.pack("<II", 0, 8)
    (tree / "boot" / f"vmlinuz-{PACKAGE.removeprefix('linux-image-')}").write_bytes(image)
    (tree / "lib" / "modules" / PACKAGE.removeprefix("linux-image-")).mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, home / "package.deb"], check=True, capture_output=True)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an apt that has the package; its file log tells of each call."""
    package(tmp_path)
    for name in ("apt-get", "apt-cache"):
        (tmp_path / name).write_text(APT)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    return tmp_path


def calls(apt: Path) -> list[str]:
    return (apt / "log").read_text().splitlines() if (apt / "log").exists() else []


def test_kernel_is_fetched_once(apt: Path) -> None:
    kernel = debian_kernel()
    assert kernel.image.exists()
    (apt / "log").unlink()
    assert debian_kernel() == kernel
    assert calls(apt) == []


def test_kernel_that_is_damaged_is_fetched_anew(apt: Path) -> None:
    image = debian_kernel().image
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])
    assert debian_kernel().image.read_bytes() == whole


def test_fetch_that_was_interrupted_is_made_again(apt: Path) -> None:
    tree = debian_kernel().tree
    (tree / ".complete").unlink()
    (tree / "boot" / "half").touch()
    assert not (debian_kernel().tree / "boot" / "half").exists()


def test_lists_of_the_guests_own_are_fetched_where_the_hosts_know_no_kernel(apt: Path) -> None:
    (apt / "unknown").touch()
    assert debian_kernel().image.exists()
    (update,) = [call for call in calls(apt) if " update" in call]
    assert f"Dir::State::Lists={apt / 'home' / 'apt' / 'lists'}" in update


def test_apt_that_knows_no_kernel_is_the_reason_to_skip(apt: Path) -> None:
    (apt / "unknown").mkdir()  # no update removes it
    with pytest.raises(HarnessUnavailable, match=r"^no Debian kernel: apt knows no package linux-image-amd64$"):
        debian_kernel()


def test_apt_that_fails_says_why(apt: Path) -> None:
    (apt / "package.deb").unlink()
    (apt / "apt-get").write_text("#!/bin/sh\necho no network >&2; exit 100\n")
    with pytest.raises(HarnessUnavailable, match=r"^apt-get failed: no network$"):
        debian_kernel()
