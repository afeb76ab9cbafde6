"""The settings of a tap that stay when whoever used it is gone: the length of its packet header, and what its frames
may need.

The next program on it may know nothing of either: without packet headers a frame that waits for its checksum, or for
segmentation, is of no use. So both are read before they are changed and put back at the end.

A tap does not tell its offloads, but they are features of its interface (``ethtool -k``). A macvtap does not even do
that: segmentation shows as GRO being on, and checksums it has by default. Whether there are headers
(IFF_VNET_HDR) needs no putting back: every program says that when it attaches, and the kernel forgets what was before.
"""

import contextlib
import errno
import fcntl
import struct

from acrn_dm.base._libc import address_of
from acrn_dm.base.records import frozen

TUNSETOFFLOAD, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x400454D0, 0x800454D7, 0x400454D8  # linux/if_tun.h
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO = 1, 2, 4, 8, 0x60  # the last is two: of IPv4 and IPv6
FEATURES = {  # names that the kernel gives the features of an interface
    "tx-checksum-ip-generic": TUN_F_CSUM,
    "tx-tcp-segmentation": TUN_F_TSO4,
    "tx-tcp6-segmentation": TUN_F_TSO6,
    "tx-tcp-ecn-segmentation": TUN_F_TSO_ECN,
    "tx-udp-segmentation": TUN_F_USO,
}
MACVTAP_SHOWS_AS = "rx-gro"
SEGMENTATION = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
DEFAULT_HEADER = 10  # struct virtio_net_hdr

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_GFEATURES = 0x1B, 0x37, 0x3A  # linux/ethtool.h
ETH_SS_FEATURES = 4
NAME_BYTES = 32
BLOCK = struct.Struct("=IIII")  # 32 features: available, requested, active, never changed
MAX_FEATURES = 1024


@frozen(kw_only=True)
class TapSettings:
    """*offloads* are TUN_F_*."""

    header_bytes: int
    offloads: int


def read(fd: int, name: str, *, macvtap: bool = False) -> TapSettings:
    """The settings of interface *name*, which *fd* is attached to; where the kernel does not tell, those it makes a tap
    with.
    """
    header = DEFAULT_HEADER
    with contextlib.suppress(OSError):
        header = struct.unpack("i", fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))[0]
    try:
        active = active_features(name)
    except OSError:
        active = {MACVTAP_SHOWS_AS}
    if macvtap:
        offloads = TUN_F_CSUM | (SEGMENTATION if MACVTAP_SHOWS_AS in active else 0)
    else:
        offloads = sum(bits for feature, bits in FEATURES.items() if feature in active)
    return TapSettings(header_bytes=header, offloads=offloads)


def write(fd: int, settings: TapSettings) -> None:
    """Set them. Raises OSError."""
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", settings.header_bytes))
    fcntl.ioctl(fd, TUNSETOFFLOAD, settings.offloads)


def active_features(name: str) -> set[str]:
    """Names of the features that are on in interface *name*. Raises OSError."""
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        names = _names(any_socket.fileno(), name)
        blocks = -(-len(names) // 32)
        answer = _ethtool(
            any_socket.fileno(), name, struct.pack("=II", ETHTOOL_GFEATURES, blocks) + bytes(BLOCK.size * blocks)
        )
    active = [BLOCK.unpack_from(answer, 8 + BLOCK.size * i)[2] for i in range(blocks)]
    return {feature for i, feature in enumerate(names) if active[i // 32] >> i % 32 & 1}


def _names(fd: int, name: str) -> list[str]:
    info = struct.pack("=IIQ", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES) + bytes(4)
    count = struct.unpack_from("=I", _ethtool(fd, name, info), 16)[0]
    if count > MAX_FEATURES:
        raise OSError(errno.EOVERFLOW, "too many features")
    strings = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(NAME_BYTES * count)
    answer = _ethtool(fd, name, strings)
    at = [12 + NAME_BYTES * i for i in range(count)]
    return [answer[i : i + NAME_BYTES].split(b"\0")[0].decode("ascii", "replace") for i in at]


def _ethtool(fd: int, name: str, command: bytes) -> bytes:
    buffer = bytearray(command)
    request = struct.pack("16sP16x", name.encode(), address_of(buffer))
    fcntl.ioctl(fd, SIOCETHTOOL, request)
    return bytes(buffer)
