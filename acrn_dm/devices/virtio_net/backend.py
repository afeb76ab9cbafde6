"""Taps: frames in and out of the host's network, one system call each. Knows no descriptor and no guest.

An interface has one descriptor for each queue pair, and hands frames to those that are attached.

A frame comes and goes with the kernel's packet header before it (IFF_VNET_HDR), so checksums and segmentation are the
host's work. A macvtap is the same behind a character device of its own.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
from pathlib import Path

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.process import processes
from acrn_dm.base.records import define
from acrn_dm.contract.drivers.packet import PacketFile as PacketFile  # noqa: PLC0414  # it is Tap's, too
from acrn_dm.devices.virtio_net import tap_settings
from acrn_dm.devices.virtio_net.request import GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6
from acrn_dm.devices.virtio_net.tap_settings import TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TapSettings

log = logging.getLogger(__name__)

TUNSETIFF, TUNSETQUEUE = 0x400454CA, 0x400454D9
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100  # linux/if_tun.h
IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE = 0x0200, 0x0400
IFREQ = struct.Struct("16sH22x")
TUN_OFFLOADS = {
    GUEST_CSUM: TUN_F_CSUM,
    GUEST_TSO4: TUN_F_TSO4,
    GUEST_TSO6: TUN_F_TSO6,
    GUEST_ECN: TUN_F_TSO_ECN,
}

NET_CLASS = Path("/sys/class/net")
DEV = Path("/dev")
TUN_DEVICE = DEV / "net/tun"
GONE = (errno.EBADFD, errno.ENODEV, errno.ENXIO)  # the interface was deleted under us


@define(eq=False)
class Tap(PacketFile):
    """A tap or macvtap. It was there before us and outlives us, so it is left as it was *found*."""

    name: str
    found: TapSettings
    _attached: bool = attrs.field(default=True, init=False)
    _settings: TapSettings | None = attrs.field(default=None, init=False)

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        """See PacketFile. A tap's detached descriptor takes no settings (EBADFD): it gets them when it is attached."""
        wanted = sum(bit for feature, bit in TUN_OFFLOADS.items() if offloads & feature)
        self._settings = TapSettings(header_bytes=header_bytes, offloads=wanted)
        if self._attached:
            self._apply()

    def attach(self, attached: bool) -> None:
        """See PacketFile."""
        if attached == self._attached:
            return
        flag = IFF_ATTACH_QUEUE if attached else IFF_DETACH_QUEUE
        try:
            fcntl.ioctl(self.fd, TUNSETQUEUE, IFREQ.pack(b"", flag))
        except OSError as e:
            raise HostError.from_os(f"switching a queue of {self.name}", e) from e
        self._attached = attached
        if attached:
            self._apply()

    def close(self) -> None:
        """Put back what was changed, and close the descriptor."""
        settings, self._settings = self._settings, None
        try:
            # A detached descriptor can't, but the first pair's never is, and the settings are the interface's.
            if settings is not None and self._attached:
                tap_settings.write(self.fd, self.found)
        except OSError as e:
            if e.errno not in GONE:
                log.warning("tap %s is left with our offloads: %s", self.name, e)
        finally:
            super().close()

    def _apply(self) -> None:
        if self._settings is None:
            return
        try:
            tap_settings.write(self.fd, self._settings)
        except OSError as e:
            raise HostError.from_os(f"setting the offloads of {self.name}", e) from e


def problem(name: str, queues: int = 1) -> str | None:
    """Why interface *name* can't be used with so many descriptors, as one line; opens nothing."""
    directory = NET_CLASS / name
    if not directory.exists():
        return f"tap {name} does not exist; make it with: ip tuntap add mode tap {name} && ip link set {name} up"
    node = _node(name)
    if node == TUN_DEVICE and not (directory / "tun_flags").exists():
        return f"interface {name} is neither a tap nor a macvtap"
    if not node.exists():
        return f"{node}, by which {name} is used, does not exist{_how_to_make(node, name)}"
    if not os.access(node, os.R_OK | os.W_OK):
        return f"{node} is not accessible; {name} needs it"
    if node == TUN_DEVICE and not _tun_flags(name) & IFF_TAP:
        return f"interface {name} is a tun, not a tap: it has no frames; ip tuntap add mode tap makes a tap"
    if node == TUN_DEVICE and queues > 1 and not _tun_flags(name) & IFF_MULTI_QUEUE:
        return f"tap {name} has one queue; make it with: ip tuntap add mode tap {name} multi_queue"
    return None


def user(name: str) -> str | None:
    """Which other process uses the interface, in words; None where there is none that we may see.

    A second user of a tap with several queues, or of a macvtap, would get every other frame: the kernel lets it.
    """
    if _has_none(name):
        return None
    try:
        node, information = os.stat(_node(name)).st_rdev, f"iff:\t{name}\n"
    except OSError:
        return None
    for pid, number in processes.openers(lambda s: stat.S_ISCHR(s.st_mode) and s.st_rdev == node):
        ours = _node(name) != TUN_DEVICE or information in processes.fd_information(pid, number)
        if ours and pid != os.getpid():
            return processes.describe(pid)
    return None


def open_tap(name: str) -> Tap:
    """Attach to the existing interface *name*. Raises ConfigError or HostError; never creates one."""
    if why := problem(name):
        raise ConfigError(why, option="virtio-net")
    node = _node(name)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | _tun_flags(name) & IFF_MULTI_QUEUE  # as it was made, or EINVAL
    try:
        fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise HostError.from_os(f"opening {node}", e) from e
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), flags))
    except OSError as e:
        os.close(fd)
        hint = f"{user(name) or 'another process'} uses it" if e.errno == errno.EBUSY else None
        raise HostError.from_os(f"attaching to tap {name}", e, hint) from e
    found = tap_settings.read(fd, name, macvtap=node != TUN_DEVICE)
    return Tap(fd=fd, vnet_header=True, name=name, found=found)


def _has_none(name: str) -> bool:
    """Whether a tap of one queue is up without a carrier, as it is while nobody uses it: then no process is looked at.
    A user that keeps the carrier off is found by the kernel, which lets nobody else in.
    """
    if _node(name) != TUN_DEVICE or _tun_flags(name) & IFF_MULTI_QUEUE:
        return False
    with contextlib.suppress(OSError):  # EINVAL: it is down
        return (NET_CLASS / name / "carrier").read_text() == "0\n"
    return False


def _tun_flags(name: str) -> int:
    """How the tap was made; 0 for a macvtap."""
    with contextlib.suppress(OSError, ValueError):
        return int((NET_CLASS / name / "tun_flags").read_text(), 0)
    return 0


def _node(name: str) -> Path:
    """A macvtap's own character device, also one that is missing; /dev/net/tun for all else."""
    directory = NET_CLASS / name
    with contextlib.suppress(OSError, ValueError):
        node = DEV / f"tap{int((directory / 'ifindex').read_text())}"
        if node.exists() or (directory / node.name).exists():
            return node
    return TUN_DEVICE


def _how_to_make(node: Path, name: str) -> str:
    """What makes a macvtap's device where nobody (udev) has done so."""
    try:
        major, minor = (NET_CLASS / name / node.name / "dev").read_text().strip().split(":")
    except (OSError, ValueError):
        return ""
    return f"; make it with: mknod {node} c {major} {minor}"
