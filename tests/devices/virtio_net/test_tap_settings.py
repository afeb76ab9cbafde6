"""A tap is left as it was found: its offloads and its header's length, on every way out."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.devices.virtio_net import acrn_dm_device_types, backend, tap_settings
from acrn_dm.devices.virtio_net.backend import Tap, open_tap
from acrn_dm.devices.virtio_net.request import GUEST_OFFLOADS
from acrn_dm.devices.virtio_net.tap_settings import SEGMENTATION, TUN_F_CSUM, TUN_F_TSO4, TapSettings
from acrn_dm.testing import SimMachine

ROOT = Path(__file__).resolve().parents[3]
FRESH = TapSettings(header_bytes=10, offloads=0)
process = pytest.mark.process


@pytest.fixture
def tap() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, iproute2 and /dev/net/tun")
    name = f"dms{os.getpid() % 100000}"
    made = subprocess.run(["ip", "tuntap", "add", "mode", "tap", "name", name], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"no tap can be made here: {made.stderr.decode().strip()}")
    try:
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True, timeout=30)


def settings_of(name: str) -> TapSettings:
    """As another program finds them."""
    tap = open_tap(name)
    tap.close()
    return tap.found


@process
@pytest.mark.parametrize("way", ["never", "close", "reset", "exception", "several pairs"])
def test_tcp_of_a_program_without_packet_headers_works_on_a_tap_that_was_ours(way: str) -> None:
    """Frames of the host's TCP go through that program into another network namespace and back."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, unshare and /dev/net/tun")
    command = ["unshare", "-nm", sys.executable, "-m", "tests.devices.virtio_net.tap_neighbour", way]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@process
@pytest.mark.parametrize("found", [FRESH, TapSettings(header_bytes=12, offloads=TUN_F_CSUM | TUN_F_TSO4)])
def test_settings_go_back_to_what_was_found(tap: str, found: TapSettings) -> None:
    first = open_tap(tap)
    tap_settings.write(first.fd, found)
    first.close()
    assert settings_of(tap) == found
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        machine.driver(3).start()
        assert "tx-tcp6-segmentation" in tap_settings.active_features(tap)
    assert settings_of(tap) == found


@process
def test_start_that_fails_changes_nothing(tap: str) -> None:
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        machine.add(acrn_dm_device_types()[0], "tap=nosuchtap0", slot=4)
        with pytest.raises(ConfigError, match="nosuchtap0"):
            machine.driver(3)
    assert settings_of(tap) == FRESH


@process
def test_driver_start_that_fails_half_way_is_put_back(tap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = fcntl.ioctl, []

    def ioctl(fd: int, request: int, argument: object) -> object:
        asked.append(request)
        if request == tap_settings.TUNSETOFFLOAD and asked.count(request) == 1:
            raise OSError(errno.EINVAL, "refused")
        return real(fd, request, argument)  # type: ignore[call-overload]

    one = open_tap(tap)
    monkeypatch.setattr("fcntl.ioctl", ioctl)
    with pytest.raises(HostError, match="offloads"):
        one.configure(header_bytes=12, offloads=GUEST_OFFLOADS)
    one.close()
    monkeypatch.undo()
    assert settings_of(tap) == FRESH


@process
def test_deleted_interface_has_nothing_to_put_back(tap: str, caplog: pytest.LogCaptureFixture) -> None:
    one = open_tap(tap)
    one.configure(header_bytes=12, offloads=GUEST_OFFLOADS)
    subprocess.run(["ip", "link", "del", tap], check=True, timeout=30)
    one.close()
    assert not caplog.records


@process
def test_flags_of_an_attachment_are_not_settings(tap: str) -> None:
    """Why IFF_VNET_HDR is not put back: whoever attaches says anew whether there are headers."""
    open_tap(tap).close()
    fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        flags = backend.IFF_TAP | backend.IFF_NO_PI
        fcntl.ioctl(fd, backend.TUNSETIFF, backend.IFREQ.pack(tap.encode(), flags))
        assert not int(Path(f"/sys/class/net/{tap}/tun_flags").read_text(), 0) & backend.IFF_VNET_HDR
    finally:
        os.close(fd)


class PlayedTap:
    """What the kernel is asked, and what it refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: int = 0) -> None:
        self.calls: list[tuple[int, object]] = []
        self._refuses = refuses
        monkeypatch.setattr("fcntl.ioctl", self._ioctl)

    def _ioctl(self, fd: int, request: int, argument: object) -> object:
        if request == tap_settings.TUNGETVNETHDRSZ:
            return struct.pack("i", 10)
        if request == tap_settings.SIOCETHTOOL:
            raise OSError(errno.EOPNOTSUPP, "no ethtool here")
        self.calls.append((request, argument))
        if self._refuses:
            raise OSError(self._refuses, os.strerror(self._refuses))
        return argument


def test_only_what_was_changed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = PlayedTap(monkeypatch)
    Tap(fd=os.open(os.devnull, os.O_RDONLY), vnet_header=True, name="t0", found=FRESH).close()
    assert kernel.calls == []


def test_settings_that_can_not_be_put_back_are_told_and_the_descriptor_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = PlayedTap(monkeypatch)
    fd = os.open(os.devnull, os.O_RDONLY)
    tap = Tap(fd=fd, vnet_header=True, name="t0", found=FRESH)
    tap.configure(header_bytes=12, offloads=GUEST_OFFLOADS)
    kernel._refuses = errno.EPERM
    tap.close()
    assert [record.getMessage() for record in caplog.records] == [
        "tap t0 is left with our offloads: [Errno 1] Operation not permitted"
    ]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("active", "offloads"), [({"rx-gro"}, TUN_F_CSUM | SEGMENTATION), ({"tx-tcp-segmentation"}, TUN_F_CSUM)]
)
def test_macvtap_shows_segmentation_as_gro(monkeypatch: pytest.MonkeyPatch, active: set[str], offloads: int) -> None:
    PlayedTap(monkeypatch)
    monkeypatch.setattr(tap_settings, "active_features", lambda name: active)
    assert tap_settings.read(-1, "mvt0", macvtap=True).offloads == offloads


@pytest.mark.parametrize(("macvtap", "offloads"), [(False, 0), (True, TUN_F_CSUM | SEGMENTATION)])
def test_kernel_that_does_not_tell_made_it_with_its_defaults(
    monkeypatch: pytest.MonkeyPatch, macvtap: bool, offloads: int
) -> None:
    PlayedTap(monkeypatch)
    assert tap_settings.read(-1, "t0", macvtap=macvtap) == TapSettings(header_bytes=10, offloads=offloads)
