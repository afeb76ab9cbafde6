"""The types that an option's field may be declared with, and how a value becomes one.

A value is text from a command line, or one of TOML's own. Each type also reads what already is one:

| declared | read from |
|---|---|
| ``bool`` | on, off, true, false, yes, no, 1, 0, or nothing behind the name |
| ``int`` | C notation: decimal, 0x, 0o, 0b |
| ``float`` | decimal; no infinity and no NaN |
| ``ByteSize`` | a whole number, or one with k, M, G or T behind it (powers of 1024) |
| ``str``, ``Path`` | text; ``~`` is the home directory |
| an ``Enum``, ``Literal[...]`` | one of its words: an enum's values where all are text, else its names in lower case |
| ``list[T]``, ``tuple[T, ...]`` | the option given several times, or a TOML array |

With ``| None`` the default may be None. A field of any other type needs a converter of its own.
"""

import enum
import math
import os
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen

ByteSize = typing.NewType("ByteSize", int)
"""A number of bytes: what an option of this type was given as ``4096``, ``4k`` or ``1G``."""

Read = Callable[[object, str], object]  # a value, and what names it in errors; raises ConfigError

TRUE_WORDS = frozenset({"on", "true", "yes", "1"})
FALSE_WORDS = frozenset({"off", "false", "no", "0"})
UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}
MAX_DIGITS = 66  # 0b and 64 digits; longer numbers could not even be printed


@frozen
class OptionValue:
    """A type's way to read a value. *metavar* stands for the value in the help, *about* says what it may be; *many*:
    given several times.
    """

    metavar: str
    read: Read
    about: str
    many: bool = False


def option_value(hint: object) -> OptionValue:
    """How values of the type *hint* are read. Raises TypeError with the reason for a type that is not in the table."""
    hint = without_none(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if typing.get_origin(hint) is typing.Literal:
        return _one_of({str(choice): choice for choice in typing.get_args(hint)})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        by_value = all(isinstance(member.value, str) for member in hint)
        return _one_of({str(member.value) if by_value else member.name.lower(): member for member in hint})
    if typing.get_origin(hint) in (list, tuple):
        return _many(hint)
    raise TypeError(f"{_name(hint)} can't be read from a command line: give the option a converter, or another type")


def without_none(hint: object) -> object:
    """The type in ``T | None``; any other as it is."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        others = [a for a in typing.get_args(hint) if a is not type(None)]
        return others[0] if len(others) == 1 else hint
    return hint


def parse_bool(value: object, what: str) -> bool:
    """Read a switch: ``True``, or one of on, off, true, false, yes, no, 1, 0. Raises ConfigError."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in TRUE_WORDS:
        return True
    if str(value).lower() in FALSE_WORDS:
        return False
    raise ConfigError("expected on or off", option=what, value=value)


def parse_int(value: object, what: str) -> int:
    """Read an integer in C notation (decimal, 0x, 0o, 0b). Raises ConfigError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if not isinstance(value, str) or len(value) > MAX_DIGITS:
            raise ValueError
        return int(value, 0)
    except ValueError:
        raise ConfigError("expected a whole number", option=what, value=value) from None


def parse_float(value: object, what: str) -> float:
    """Read a finite decimal number. Raises ConfigError."""
    try:
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise ConfigError("expected a number", option=what, value=value) from None
    return number


def parse_size(value: object, what: str) -> ByteSize:
    """Read a number of bytes, with k, M, G or T behind it for powers of 1024. Raises ConfigError."""
    digits, shift = value, 0
    if isinstance(value, str) and value[-1:].lower() in UNITS and value[:-1].isdecimal():
        digits, shift = value[:-1], UNITS[value[-1].lower()]
    try:
        number = parse_int(digits, what)
        if number < 0:
            raise ConfigError("negative", option=what)
    except ConfigError:
        raise ConfigError("expected a number of bytes, such as 4096, 4k or 1G", option=what, value=value) from None
    return ByteSize(number << shift)


def parse_text(value: object, what: str) -> str:
    """Take text as it is. Raises ConfigError for another of TOML's types."""
    if not isinstance(value, str):
        raise ConfigError("expected text", option=what, value=value)
    return value


def _path(value: object, what: str) -> Path:
    return Path(os.path.expanduser(parse_text(value, what)))  # pathlib's raises for an unknown ~user


def _needs_value(read: Read) -> Read:
    def checked(value: object, what: str) -> object:
        if value is True or value == "":
            raise ConfigError("a value is missing; write it behind '='", option=what)
        return read(value, what)

    return checked


_SCALARS: dict[object, OptionValue] = {
    bool: OptionValue("on|off", parse_bool, "a switch: bare it is on; also true, false, yes, no, 1, 0"),
    int: OptionValue("N", _needs_value(parse_int), "a whole number: 12, 0xc, 0o14 or 0b1100"),
    float: OptionValue("NUMBER", _needs_value(parse_float), "a number: 2, 0.5 or 1e-3"),
    ByteSize: OptionValue("BYTES", _needs_value(parse_size), "a number of bytes: 4096, or with k, M, G or T behind it"),
    str: OptionValue("TEXT", _needs_value(parse_text), "text"),
    Path: OptionValue("PATH", _needs_value(_path), "a path; ~ is the home directory"),
}


def _one_of(choices: dict[str, object]) -> OptionValue:
    def read(value: object, what: str) -> object:
        for word, choice in choices.items():
            if value == word or (value == choice and type(value) is type(choice)):
                return choice
        raise ConfigError(f"expected one of {', '.join(choices)}", option=what, value=value)

    return OptionValue("|".join(choices), _needs_value(read), "one of these words")


def _many(hint: object) -> OptionValue:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        raise TypeError(f"{_name(hint)} has a fixed length: declare tuple[T, ...] and check the length in a validator")
    one = option_value(inner[0])
    if one.many:
        raise TypeError(f"{_name(hint)} has lists in a list, which no command line can say: give it a converter")

    def read(value: object, what: str) -> object:
        given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return (list if origin is list else tuple)(one.read(item, what) for item in given)

    return OptionValue(f"{one.metavar}, may be repeated", read, one.about, many=True)


def _name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
