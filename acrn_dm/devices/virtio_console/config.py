"""Options of ``virtio-console``: a comma list of ``[@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait]``, one item per
port; or ``vhost-user=SOCKET``; ``max_ports=N`` may stand among them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.base.sockets.paths import path_problem
from acrn_dm.contract.option_text import split_options
from acrn_dm.contract.options import from_mapping, option, vhost_user_option

WHAT = "virtio-console"
MAX_PORTS = 16
MAX_NAME = 64
TYPES = ("stdio", "tty", "pty", "file", "socket")
WITH_PATH = ("tty", "file", "socket")
ROLES = ("server", "client")
SLOW = ("drop", "wait")


def _type(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if value not in TYPES:
        raise ValueError(f"port type {value!r}: expected {', '.join(TYPES)}")


def _name(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not value or len(value.encode()) > MAX_NAME or not value.isprintable():
        raise ValueError(f"port name {value!r}: expected 1 to {MAX_NAME} printable characters")


def _role(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if value not in ROLES:
        raise ValueError(f"socket role {value!r}: expected {' or '.join(ROLES)}")


def _slow(instance: object, attribute: "attrs.Attribute[str | None]", value: str | None) -> None:
    if value is not None and value not in SLOW:
        raise ValueError(f"slow reader {value!r}: expected {' or '.join(SLOW)}")


@frozen(kw_only=True)
class PortConfig:
    """One port. *console* makes it an hvc console in the guest, otherwise it is a named serial port.

    *slow*: what a reader that does not keep up costs: ``drop`` the oldest output, or the guest has to ``wait``. By
    default consoles drop, as their driver spins while it waits, and others wait.
    """

    type: str = attrs.field(validator=_type)
    name: str = attrs.field(validator=_name)
    path: Path | None = None
    console: bool = False
    role: str = attrs.field(default="server", validator=_role)
    slow: str | None = attrs.field(default=None, validator=_slow)

    def __attrs_post_init__(self) -> None:
        if self.type in WITH_PATH and self.path is None:
            raise ValueError(f"port {self.name}: type {self.type} needs a path: {self.type}:{self.name}=PATH")
        why = path_problem(self.path) if self.type == "socket" and self.path is not None else None
        if why is not None:
            raise ValueError(f"port {self.name}: {str(self.path)!r}: {why}")

    @classmethod
    def from_string(cls, text: str) -> "PortConfig":
        """Read one item. The type is not case-sensitive; a path may hold colons, the last before a word that may follow
        ends it.
        """
        console = text.startswith("@")
        kind, _, rest = text.removeprefix("@").partition(":")
        rest, slow = _last_word(rest, SLOW)
        rest, role = _last_word(rest, ROLES)
        if "=" not in rest and ":" in rest:
            raise ValueError(f"{rest.partition(':')[2]!r}: expected {', '.join(ROLES + SLOW)}")
        name, eq, path = rest.partition("=")
        return cls(
            type=kind.lower(),
            name=name,
            path=Path(path).expanduser() if eq and path else None,
            console=console,
            role=role or "server",
            slow=slow,
        )


def _last_word(text: str, words: Sequence[str]) -> tuple[str, str | None]:
    """Split off ``:WORD``, one of *words*, from the end of *text*."""
    head, _, tail = text.rpartition(":")
    return (head, tail) if tail in words else (text, None)


def _ports(value: Any) -> tuple[PortConfig, ...]:
    """From one text, or a sequence whose items are texts, tables or PortConfig."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = split_options(value)
    if not isinstance(value, Sequence) or not value:
        raise ValueError("at least one port is needed: [@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait]")
    return tuple(_port(item) for item in value)


def _port(item: Any) -> PortConfig:
    if isinstance(item, PortConfig):
        return item
    if isinstance(item, Mapping):
        return from_mapping(PortConfig, item, f"{WHAT} port")
    return PortConfig.from_string(str(item))


def _max_ports(instance: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and not 1 <= value <= MAX_PORTS:
        raise ValueError(f"max_ports={value}: expected 1 to {MAX_PORTS}")


@frozen(kw_only=True)
class ConsoleConfig:
    """The options of one console. Port 0 is the first; drivers without MULTIPORT see only that one."""

    GRAMMAR: ClassVar[str] = (
        "[@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait][,...][,max_ports=N] or vhost-user=SOCKET[,max_ports=N]"
    )

    ports: tuple[PortConfig, ...] = option(
        default=None,
        converter=_ports,
        metavar="[@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait],...",
        help="Ports; TYPE is stdio, tty, pty, file or socket, '@' makes a console (hvcN) of it. For a reader that is "
        "too slow a console keeps 256 KiB, lets the guest wait 0.1 s and then drops the oldest; on other ports the "
        "guest waits. ':drop' and ':wait' choose. Ctrl-a x, typed at stdio, ends the machine.",
    )
    max_ports: int | None = option(
        default=None,
        validator=_max_ports,
        help=f"Ports that the driver finds queues for, 1 to {MAX_PORTS}; by default those that are given, "
        f"over vhost-user {MAX_PORTS}.",
    )
    vhost_user: Path | None = vhost_user_option()

    def __attrs_post_init__(self) -> None:
        if bool(self.ports) == (self.vhost_user is not None):
            raise ValueError(
                "expected either ports ([@]TYPE:PORTNAME[=PATH][:server|client][:drop|wait],...) or vhost-user=SOCKET"
            )
        if len(self.ports) > MAX_PORTS:
            raise ValueError(f"{len(self.ports)} ports: there can be {MAX_PORTS}")
        if self.max_ports is not None and len(self.ports) > self.max_ports:
            raise ValueError(f"max_ports={self.max_ports}: {len(self.ports)} ports are given")
        names = [port.name for port in self.ports]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"port name {name!r} is given twice")
        if sum(port.type == "stdio" for port in self.ports) > 1:
            raise ValueError("only one port can have stdio")

    @property
    def queue_ports(self) -> int:
        """How many ports there are queues for. What another process has is not known before it is there."""
        return self.max_ports or len(self.ports) or MAX_PORTS

    @classmethod
    def from_string(cls, text: str) -> "ConsoleConfig":
        """Read the original's grammar. Raises ConfigError."""
        items = split_options(text)
        limits = [item for item in items if item.partition("=")[0] in ("max_ports", "max-ports")]
        if len(limits) > 1:
            raise ConfigError("option 'max_ports' is given twice", option=WHAT, value=text)
        values: dict[str, Any] = {"max_ports": limits[0].partition("=")[2]} if limits else {}
        rest = [item for item in items if item not in limits]
        key, eq, socket = ",".join(rest).partition("=")
        if key in ("vhost-user", "vhost_user"):
            return from_mapping(cls, {key: socket if eq else True, **values}, WHAT)
        return from_mapping(cls, {"ports": rest, **values} if rest or not limits else values, WHAT)
