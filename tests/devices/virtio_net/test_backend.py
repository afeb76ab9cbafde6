"""What an interface is, by what the kernel says of it: a played /sys and /dev."""

from pathlib import Path

import pytest

from acrn_dm.devices.virtio_net import backend


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backend, "NET_CLASS", tmp_path / "net")
    monkeypatch.setattr(backend, "DEV", tmp_path)
    monkeypatch.setattr(backend, "TUN_DEVICE", tmp_path / "tun")
    (tmp_path / "tun").touch()
    return tmp_path


def interface(host: Path, name: str, index: int, **files: str) -> Path:
    directory = host / "net" / name
    directory.mkdir(parents=True)
    (directory / "ifindex").write_text(f"{index}\n")
    for file, text in files.items():
        (directory / file).write_text(text)
    return directory


def macvtap(host: Path) -> Path:
    made = interface(host, "mv0", 7) / "tap7"
    made.mkdir()
    (made / "dev").write_text("241:3\n")
    return made


def test_tap_is_used_by_dev_net_tun(host: Path) -> None:
    interface(host, "tap0", 5, tun_flags="0x1002\n")
    assert backend.problem("tap0") is None


def test_macvtap_without_its_device_is_called_a_macvtap(host: Path) -> None:
    macvtap(host)
    assert backend.problem("mv0") == (
        f"{host}/tap7, by which mv0 is used, does not exist; make it with: mknod {host}/tap7 c 241 3"
    )


def test_macvtap_of_which_the_kernel_tells_no_number(host: Path) -> None:
    (macvtap(host) / "dev").unlink()
    assert backend.problem("mv0") == f"{host}/tap7, by which mv0 is used, does not exist"


def test_macvtap_with_its_device_is_usable(host: Path) -> None:
    macvtap(host)
    (host / "tap7").touch()
    assert backend.problem("mv0") is None


def test_host_without_dev_net_tun(host: Path) -> None:
    interface(host, "tap0", 5, tun_flags="0x1002\n")
    (host / "tun").unlink()
    assert backend.problem("tap0") == f"{host}/tun, by which tap0 is used, does not exist"


@pytest.mark.parametrize(
    ("flags", "queues", "problem"),
    [
        ("", 1, "interface eth0 is neither a tap nor a macvtap"),
        ("0x1001\n", 1, "interface eth0 is a tun, not a tap: it has no frames; ip tuntap add mode tap makes a tap"),
        ("0x1002\n", 2, "tap eth0 has one queue; make it with: ip tuntap add mode tap eth0 multi_queue"),
        ("0x1102\n", 2, None),
    ],
)
def test_interface_of_another_kind(host: Path, flags: str, queues: int, problem: str | None) -> None:
    interface(host, "eth0", 2, **({"tun_flags": flags} if flags else {}))
    assert backend.problem("eth0", queues) == problem


def test_missing_interface(host: Path) -> None:
    assert backend.problem("tap9") == (
        "tap tap9 does not exist; make it with: ip tuntap add mode tap tap9 && ip link set tap9 up"
    )
    assert backend.user("tap9") is None
