"""Options of ``virtio-net``, in any order: ``tap=NAME``, ``vhost-user=SOCKET`` or ``driver=NAME`` with the driver's
options, then what ``GRAMMAR`` lists.
"""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.files.digest import md5
from acrn_dm.base.records import frozen
from acrn_dm.contract.option_text import split_options
from acrn_dm.contract.option_types import FALSE_WORDS, TRUE_WORDS
from acrn_dm.contract.options import from_mapping, option, vhost_user_option
from acrn_dm.contract.types import Bdf

WHAT = "virtio-net"
MAC = r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\Z"
MAX_PAIRS = 128  # queue pairs; with the control queue, notify registers fit their region of the modern BAR
OUI = bytes((0x00, 0x16, 0x3E))  # of generated addresses, as in the original


def _is_interface(name: str) -> bool:
    return 0 < len(name) < 16 and name not in (".", "..") and not re.search(r"[\s/:]", name)


def interface_name(instance: object, attribute: "attrs.Attribute[str | None]", value: str | None) -> None:
    """A validator of names of interfaces. Raises ValueError."""
    if value is not None and not _is_interface(value):
        raise ValueError(f"tap {value!r} is no interface name: 1 to 15 characters without '/', ':' and blanks")


def _mac(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if not re.match(MAC, str(value)):
        raise ValueError(f"mac {value!r}: expected XX:XX:XX:XX:XX:XX in hexadecimal")
    address = bytes.fromhex(str(value).replace(":", ""))
    if address[0] & 1 or not any(address):
        raise ValueError(f"mac {value!r}: {'a multicast' if any(address) else 'the zero'} address can't be a station's")
    return address


def _vhost(value: Any) -> str:
    word = ("on" if value else "off") if isinstance(value, bool) else str(value).lower()
    if word == "auto":
        return word
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"vhost {value!r}: expected on, off or auto")
    return "on" if word in TRUE_WORDS else "off"


def _pairs(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= MAX_PAIRS:
        raise ValueError(f"mq {value}: expected 1 to {MAX_PAIRS}")


def _mtu(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and not 68 <= value <= 65535:  # 5.1.4.1
        raise ValueError(f"mtu {value}: expected 68 to 65535")


def _speed(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and not 0 <= value <= 0x7FFF_FFFF:  # 5.1.4.1
        raise ValueError(f"speed {value}: expected 0 to 2147483647 Mbit/s")


@frozen(kw_only=True)
class NetConfig:
    """The options of one card. Converters and validators raise ValueError, which the option reader turns into a
    ConfigError.
    """

    GRAMMAR: ClassVar[str] = (
        "tap=NAME[,vhost[=auto]]|vhost-user=SOCKET|driver=NAME[,OPTION...][,mq=N][,rss][,hash][,mtu=N][,speed=N][,duplex=half|full][,mac=XX:XX:XX:XX:XX:XX|,mac_seed=SEED]"
    )

    NOT_WITH_DRIVER: ClassVar[frozenset[str]] = frozenset({"tap", "vhost", "vhost_user"})

    tap: str | None = option(
        default=None, validator=interface_name, metavar="NAME", help="Tap or macvtap interface; it must exist."
    )
    vhost: str = option(
        default="off",
        converter=_vhost,
        metavar="on|off|auto",
        help="Let the host's kernel move the data; auto: if it can. Bare: on.",
    )
    vhost_user: Path | None = vhost_user_option()
    driver: str | None = option(
        default=None,
        metavar="NAME",
        help="What carries the frames, instead of a tap: a packet driver, whose own options stand beside it. "
        "'-s virtio-net,driver=NAME,help' shows them.",
    )
    mq: int = option(default=1, validator=_pairs, help="Queue pairs; a tap for several is made with multi_queue.")
    rss: bool = option(default=False, help="The driver may choose the queue of each frame received, by its hash (RSS).")
    hash: bool = option(default=False, help="The driver is told the hash of each frame received (HASH_REPORT).")
    mtu: int | None = option(
        default=None, validator=_mtu, help="Largest packet that the guest is told of, 68 to 65535."
    )
    speed: int | None = option(default=None, validator=_speed, metavar="MBIT", help="Speed that the guest is told of.")
    duplex: Literal["half", "full"] | None = option(default=None, help="Duplex that the guest is told of.")
    mac: bytes | None = option(
        default=None,
        converter=_mac,
        metavar="XX:XX:XX:XX:XX:XX",
        help="Address; by default made from the slot and mac_seed.",
    )
    mac_seed: str | None = option(default=None, help="Makes generated addresses differ between machines.")

    def __attrs_post_init__(self) -> None:
        if self.mac is not None and self.mac_seed is not None:
            raise ValueError("mac and mac_seed exclude each other")
        if sum(what is not None for what in (self.tap, self.vhost_user, self.driver)) != 1:
            raise ValueError("expected either tap=NAME or vhost-user=SOCKET or driver=NAME")
        if self.tap is None and self.vhost != "off":
            raise ValueError(f"vhost and {'driver' if self.driver else 'vhost-user'} exclude each other")
        if (self.rss or self.hash) and (self.vhost_user is not None or self.vhost != "off"):
            raise ValueError("rss and hash are for frames that this process moves, without vhost and vhost-user")

    @classmethod
    def from_string(cls, text: str) -> "NetConfig":
        """Read the original's grammar; a seed may stand anywhere. Raises ConfigError."""
        values: dict[str, Any] = {}
        for token in filter(None, split_options(text)):
            key, eq, value = token.partition("=")
            if key in values:
                raise ConfigError(f"option {key!r} is given twice", option=WHAT, value=text)
            if not eq and key not in ("vhost", "rss", "hash"):
                meant = f"did you mean 'tap={token}'? " if _is_interface(token) and "tap" not in values else ""
                known = "tap=NAME, vhost[=auto], vhost-user=SOCKET, driver=NAME, mq=N, rss, hash, mtu=N, speed=N, "
                known += "duplex=half|full, mac=... or mac_seed=..."
                raise ConfigError(f"{token!r}: {meant}expected {known}", option=WHAT, value=text)
            values[key] = value if eq else True
        return from_mapping(cls, values, WHAT)

    @property
    def duplex_code(self) -> int:
        """As the configuration space has it (5.1.4): 0xFF where the guest is told of none."""
        return {"half": 0, "full": 1}.get(self.duplex or "", 0xFF)

    def address(self, bdf: Bdf) -> bytes:
        """The device's MAC: the one given, or three bytes of an MD5 over slot, function and seed behind the OUI."""
        if self.mac is not None:
            return self.mac
        text = f"{bdf.slot}-{bdf.func}" if self.mac_seed is None else f"{bdf.slot}-{bdf.func}-{self.mac_seed}"
        return OUI + md5(text.encode())[:3]
