"""Rules: which requests something happens to, and what. ``error=EIO:on=write:sectors=8-15:nth=3``."""

import errno
import math
import random
from collections.abc import Callable

import attrs

SECTOR = 512
OPERATIONS = ("read", "write", "flush", "discard", "zeroes")
FOREVER = "forever"
SILENT = "none"


@attrs.frozen(kw_only=True)
class Rule:
    """One rule. What happens: ``error``, ``delay``, ``torn``. To what: everything that all other fields let pass.

    ``error`` is an errno, 0 for success; ``delay`` is in seconds; ``torn`` is how many bytes of a write are stored:
    None for all, -1 for so many sectors as chance says.
    """

    text: str
    error: int = 0
    delay: float = 0.0
    torn: int | None = None
    on: frozenset[str] = frozenset(OPERATIONS)
    first: int = 0  # sectors; a flush has none, and no range keeps it out
    last: int = 1 << 63
    chance: float = 1.0
    nth: int = 1  # every so many of those that match
    after: int = 0  # how many of those that match are left alone first
    times: int | None = None  # how often it happens at most


def parse(text: str) -> Rule:
    """Read one rule. Raises ValueError with the word that is wrong."""
    given: dict[str, str] = {}
    for word in text.split(":"):
        key, eq, value = word.partition("=")
        if key not in READERS or not eq:
            raise ValueError(f"rule {text!r}: {word!r} is none of {', '.join(f'{key}=' for key in READERS)}")
        if key in given:
            raise ValueError(f"rule {text!r}: {key} is given twice")
        given[key] = value
    fields: dict[str, object] = {}
    for key, value in given.items():
        try:
            fields |= READERS[key](value)
        except ValueError as e:
            raise ValueError(f"rule {text!r}: {key} {value!r}: {e}") from None
    if not given.keys() & {"error", "delay", "torn"}:
        raise ValueError(f"rule {text!r}: nothing happens; add error=, delay= or torn=")
    if "torn" in given:
        fields.setdefault("on", frozenset({"write"}))
        fields.setdefault("error", errno.EIO)
        if fields["on"] != {"write"}:
            raise ValueError(f"rule {text!r}: only a write can be torn")
    return Rule(text=text, **fields)  # type: ignore[arg-type]  # each by its reader


def _error(value: str) -> dict[str, object]:
    if value == SILENT:
        return {"error": 0}
    number = getattr(errno, value, None)
    if not isinstance(number, int):
        raise ValueError("expected the name of an errno, such as EIO, or none")
    return {"error": number}


def _delay(value: str) -> dict[str, object]:
    if value == FOREVER:
        return {"delay": math.inf}
    return {"delay": _number(value, 0, 86_400_000) / 1000}


def _torn(value: str) -> dict[str, object]:
    if value == "random":
        return {"torn": -1}
    size = _whole(value, 0)
    if size % SECTOR:
        raise ValueError(f"expected whole sectors of {SECTOR} bytes, or random")
    return {"torn": size}


def _on(value: str) -> dict[str, object]:
    words = frozenset(value.split("+"))
    if words - set(OPERATIONS):
        raise ValueError(f"expected some of {'+'.join(OPERATIONS)}")
    return {"on": words}


def _sectors(value: str) -> dict[str, object]:
    first, dash, last = value.partition("-")
    ends = _whole(first, 0), _whole(last, 0) if dash else _whole(first, 0)
    if ends[0] > ends[1]:
        raise ValueError("expected FIRST-LAST")
    return {"first": ends[0], "last": ends[1]}


def _number(value: str, low: float, high: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}")
    return number


def _whole(value: str, low: int) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 19 or int(value) < low:
        raise ValueError(f"expected a whole number from {low}")
    return int(value)


READERS: dict[str, Callable[[str], dict[str, object]]] = {
    "error": _error,
    "delay": _delay,
    "torn": _torn,
    "on": _on,
    "sectors": _sectors,
    "chance": lambda value: {"chance": _number(value, 0, 1)},
    "nth": lambda value: {"nth": _whole(value, 1)},
    "after": lambda value: {"after": _whole(value, 0)},
    "times": lambda value: {"times": _whole(value, 1)},
}


@attrs.define(eq=False)
class Armed:
    """A rule in force, with what it has seen; *dice* are the driver's."""

    rule: Rule
    dice: random.Random
    seen: int = 0  # requests that matched
    hits: int = 0  # that it happened to

    def takes(self, operation: str, offset: int, length: int) -> bool:
        """Whether it happens to a request for *length* bytes at byte *offset*; counts it if it matches."""
        rule = self.rule
        if operation not in rule.on or (rule.times is not None and self.hits >= rule.times):
            return False
        apart = offset + length <= rule.first * SECTOR or offset > rule.last * SECTOR + SECTOR - 1
        if operation != "flush" and apart:
            return False
        self.seen += 1
        if self.seen <= rule.after or (self.seen - rule.after) % rule.nth:
            return False
        if rule.chance < 1 and self.dice.random() >= rule.chance:
            return False
        self.hits += 1
        return True

    def kept(self, length: int) -> int:
        """How many bytes of a write of *length* are stored."""
        torn = self.rule.torn
        if torn is None:
            return length
        return self.dice.randrange(length // SECTOR) * SECTOR if torn < 0 else min(torn, length)
