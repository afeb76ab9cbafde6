"""What is missing is said in one line, with the packages that have it."""

from pathlib import Path

import pytest

from acrn_dm.testing.guest import needs, places

EVERY = ("busybox", "modprobe", "depmod", "apt-get", "apt-cache", "dpkg-deb", "qemu-system-x86_64")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the only programs of this host; and an empty home of guests."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in EVERY:
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(needs, "PATH", "")
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize("emulated", [True, False])
def test_nothing_is_missing_where_every_program_is_there(programs: Path, emulated: bool) -> None:
    assert needs.missing(emulated=emulated) is None


@pytest.mark.parametrize(
    ("absent", "line"),
    [
        (["qemu-system-x86_64"], "no guest without qemu-system-x86_64: apt-get install qemu-system-x86"),
        (["busybox"], "no guest without busybox: apt-get install busybox-static"),
        (["modprobe", "depmod"], "no guest without modprobe, depmod: apt-get install kmod"),
        (["busybox", "apt-get"], "no guest without busybox, apt-get: apt-get install apt busybox-static"),
    ],
)
def test_the_line_names_programs_and_packages(programs: Path, absent: list[str], line: str) -> None:
    for name in absent:
        (programs / name).unlink()
    assert needs.missing(emulated=True) == line


def test_qemu_is_not_needed_on_kvm(programs: Path) -> None:
    (programs / "qemu-system-x86_64").unlink()
    assert needs.missing(emulated=False) is None


def test_apt_is_not_needed_for_a_kernel_that_is_there(programs: Path) -> None:
    (programs / "apt-get").unlink()
    (places.home() / "kernel" / "linux-image-1" / "boot").mkdir(parents=True)
    assert needs.missing(emulated=True) is None


def test_another_architecture_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.platform, "machine", lambda: "riscv64")
    assert needs.missing(emulated=True) == "guests are for x86_64, and this is riscv64"
