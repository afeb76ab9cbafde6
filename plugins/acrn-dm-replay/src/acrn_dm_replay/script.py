"""Scripts: one access of the guest's processor a line, understood before anything is played.

``VERBS`` has the grammar. A value that a read shall return may have a mask behind it, ``0x60/0x40``: only its bits
count. Numbers are as in C; ``#`` begins a comment.
"""

from collections.abc import Callable
from pathlib import Path

import attrs

from acrn_dm import ConfigError, Space

MAX_SCRIPT = 64 << 20  # bytes; whoever needs more has named the wrong file
PORT_SIZES, MEMORY_SIZES = (1, 2, 4), (1, 2, 4, 8)
LIMITS = {Space.PIO: 1 << 16, Space.MMIO: 1 << 52}
PATIENCE_S = 10.0  # how long an interrupt is waited for when the script does not say


@attrs.frozen(kw_only=True)
class Expected:
    """The value that a read shall return, as far as *mask* goes."""

    value: int
    mask: int

    def met(self, value: int) -> bool:
        """Whether *value* will do."""
        return value & self.mask == self.value & self.mask


@attrs.frozen(kw_only=True)
class Read:
    """IN or a load."""

    space: Space
    addr: int
    size: int
    expected: Expected | None


@attrs.frozen(kw_only=True)
class Write:
    """OUT or a store."""

    space: Space
    addr: int
    size: int
    value: int


@attrs.frozen(kw_only=True)
class Get:
    """Bytes of RAM, read at once."""

    gpa: int
    length: int
    expected: bytes | None


@attrs.frozen(kw_only=True)
class Put:
    """Bytes of RAM, written at once."""

    gpa: int
    data: bytes


@attrs.frozen(kw_only=True)
class AwaitMessage:
    """A message interrupt with *data*; one that has come already will do, once."""

    data: int
    seconds: float


@attrs.frozen(kw_only=True)
class AwaitLine:
    """A level of an interrupt line."""

    gsi: int
    level: bool
    seconds: float


@attrs.frozen(kw_only=True)
class AwaitRestart:
    """The next start of the processor, after the reset or the sleep that the lines before asked for."""


Action = Read | Write | Get | Put | AwaitMessage | AwaitLine | AwaitRestart


@attrs.frozen(kw_only=True)
class Step:
    """One line: where it stands, what it says, what it does."""

    where: str
    text: str
    action: Action


@attrs.frozen(kw_only=True)
class Verb:
    """A word that a line begins with; *least* and *most* are how many words may follow."""

    usage: str
    least: int
    most: int
    parse: Callable[[list[str]], Action]


def load(path: Path) -> tuple[Step, ...]:
    """Read the script in file *path*. Raises ConfigError that names the line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCRIPT + 1)
    except OSError as e:
        raise ConfigError(e.strerror or str(e), option="--script", value=str(path)) from e
    if len(data) > MAX_SCRIPT:
        raise ConfigError(f"the file is larger than {MAX_SCRIPT} bytes", option="--script", value=str(path))
    try:
        return parse(data.decode(), str(path))
    except UnicodeDecodeError:
        raise ConfigError("not text", option="--script", value=str(path)) from None


def parse(text: str, name: str) -> tuple[Step, ...]:
    """Understand *text*; *name* is the file's in errors. Raises ConfigError."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            where = f"{name}:{number}"
            try:
                steps.append(Step(where=where, text=" ".join(words), action=_action(words)))
            except ValueError as e:
                raise ConfigError(str(e), option=where) from None
    return tuple(steps)


def _action(words: list[str]) -> Action:
    verb = VERBS.get(words[0])
    if verb is None:
        raise ValueError(f"{words[0]!r} is none of {', '.join(VERBS)}")
    if not verb.least <= len(words) - 1 <= verb.most:
        raise ValueError(f"expected {words[0]} {verb.usage}".rstrip())
    return verb.parse(words[1:])


def _number(text: str) -> int:
    try:
        if len(text) > 66:  # 0b and 64 digits
            raise ValueError
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{text[:66]!r} is no number") from None


def _seconds(words: list[str]) -> float:
    if not words:
        return PATIENCE_S
    try:
        seconds = float(words[0])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise ValueError(f"{words[0]!r} is no time from 0 to 3600 s")
    return seconds


def _place(space: Space, addr: str, size: str) -> tuple[int, int]:
    at, length = _number(addr), _number(size)
    sizes = PORT_SIZES if space is Space.PIO else MEMORY_SIZES
    if length not in sizes:
        raise ValueError(f"no access has {length} bytes; expected {', '.join(map(str, sizes))}")
    if not 0 <= at <= LIMITS[space] - length:
        raise ValueError(f"{addr} is no address there")
    return at, length


def _value(text: str, size: int) -> int:
    value = _number(text)
    if not 0 <= value < 1 << 8 * size:
        raise ValueError(f"{text} does not fit into {size} bytes")
    return value


def _read(space: Space) -> Callable[[list[str]], Action]:
    def parse(words: list[str]) -> Action:
        addr, size = _place(space, *words[:2])
        expected = None
        if words[2:]:
            value, slash, mask = words[2].partition("/")
            bits = _value(mask, size) if slash else (1 << 8 * size) - 1
            expected = Expected(value=_value(value, size), mask=bits)
        return Read(space=space, addr=addr, size=size, expected=expected)

    return parse


def _write(space: Space) -> Callable[[list[str]], Action]:
    def parse(words: list[str]) -> Action:
        addr, size = _place(space, *words[:2])
        return Write(space=space, addr=addr, size=size, value=_value(words[2], size))

    return parse


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r}: expected bytes in hex, two digits each") from None


def _get(words: list[str]) -> Action:
    gpa, length = _number(words[0]), _number(words[1])
    expected = _hex(words[2]) if words[2:] else None
    if not 0 < length <= 1 << 20 or (expected is not None and len(expected) != length):
        raise ValueError(f"{length} bytes: expected 1 to 1048576, and as many as are given")
    return Get(gpa=gpa, length=length, expected=expected)


def _put(words: list[str]) -> Action:
    return Put(gpa=_number(words[0]), data=_hex(words[1]))


def _message(words: list[str]) -> Action:
    return AwaitMessage(data=_value(words[0], 4), seconds=_seconds(words[1:]))


def _line(words: list[str]) -> Action:
    if words[1] not in ("0", "1"):
        raise ValueError(f"{words[1]!r} is no level; expected 0 or 1")
    return AwaitLine(gsi=_number(words[0]), level=words[1] == "1", seconds=_seconds(words[2:]))


VERBS = {
    "in": Verb(usage="PORT SIZE [VALUE[/MASK]]", least=2, most=3, parse=_read(Space.PIO)),
    "out": Verb(usage="PORT SIZE VALUE", least=3, most=3, parse=_write(Space.PIO)),
    "load": Verb(usage="ADDRESS SIZE [VALUE[/MASK]]", least=2, most=3, parse=_read(Space.MMIO)),
    "store": Verb(usage="ADDRESS SIZE VALUE", least=3, most=3, parse=_write(Space.MMIO)),
    "get": Verb(usage="ADDRESS LENGTH [HEX]", least=2, most=3, parse=_get),
    "put": Verb(usage="ADDRESS HEX", least=2, most=2, parse=_put),
    "msi": Verb(usage="DATA [SECONDS]", least=1, most=2, parse=_message),
    "line": Verb(usage="GSI 0|1 [SECONDS]", least=2, most=3, parse=_line),
    "restart": Verb(usage="", least=0, most=0, parse=lambda words: AwaitRestart()),
}
