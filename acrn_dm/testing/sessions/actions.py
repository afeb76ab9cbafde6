"""The actions of a driver as records, and the text that they are printed as: one call a line, in Python's syntax.

::

    start()
    send(queue=0, out=[b'\\x00'], in_=[1])
    kick(queue=0)
    settle()
    collect(queue=0)
"""

import ast
from collections.abc import Iterable

import attrs

Descriptor = tuple[int, int, int, int]  # gpa, length, flags, next


def _contents(values: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(values)


def _lengths(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _rows(values: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    return tuple((gpa, length, flags, following) for gpa, length, flags, following in values)


@attrs.frozen(str=False)
class Action:
    """Base of all actions. Its name in the text is the class's in lower case with underscores."""

    def __str__(self) -> str:
        fields = [field for field in attrs.fields(type(self)) if getattr(self, field.name) != field.default]
        return f"{_word(type(self))}({', '.join(f'{f.name}={_shown(getattr(self, f.name))}' for f in fields)})"


@attrs.frozen(kw_only=True, str=False)
class Start(Action):
    """Reset and initialize the device: accept *features* (None: all that are offered), set all queues up."""

    features: int | None = None


@attrs.frozen(kw_only=True, str=False)
class Reset(Action):
    """Reset the device; what was in flight is forgotten."""


@attrs.frozen(kw_only=True, str=False)
class Send(Action):
    """Make one chain available: *out* are contents, *in_* lengths to be filled in. Nothing where the ring is full."""

    queue: int
    out: tuple[bytes, ...] = attrs.field(default=(), converter=_contents)
    in_: tuple[int, ...] = attrs.field(default=(), converter=_lengths)
    indirect: bool = False


@attrs.frozen(kw_only=True, str=False)
class Kick(Action):
    """Notify the device if it wants that, or by *force*."""

    queue: int
    force: bool = False


@attrs.frozen(kw_only=True, str=False)
class Settle(Action):
    """Let the device do all that it can do now."""


@attrs.frozen(kw_only=True, str=False)
class Collect(Action):
    """Take back what the device has returned."""

    queue: int


@attrs.frozen(kw_only=True, str=False)
class ReadConfig(Action):
    """Read *length* bytes of the device's configuration at *offset*."""

    offset: int
    length: int


@attrs.frozen(kw_only=True, str=False)
class WriteConfig(Action):
    """Write *data* into the device's configuration at *offset*."""

    offset: int
    data: bytes


@attrs.frozen(kw_only=True, str=False)
class Advance(Action):
    """Let *seconds* pass on the machine's clock."""

    seconds: float


@attrs.frozen(kw_only=True, str=False)
class Poke(Action):
    """Raw *descriptors* (gpa, length, flags, next), as no good driver writes them, from the table's first on; *head* is
    made available, the device notified. It may ask for a reset; the session resets it before it goes on.
    """

    queue: int
    descriptors: tuple[Descriptor, ...] = attrs.field(converter=_rows)
    head: int = 0


def _actions(values: Iterable[Action]) -> tuple[Action, ...]:
    return tuple(values)


@attrs.frozen(str=False)
class Session:
    """Actions in their order. ``str`` is the text that ``parse_session`` reads."""

    actions: tuple[Action, ...] = attrs.field(converter=_actions)

    def __str__(self) -> str:
        return "\n".join(map(str, self.actions))


ACTIONS = (Start, Reset, Send, Kick, Settle, Collect, ReadConfig, WriteConfig, Advance, Poke)


def parse_session(text: str) -> Session:
    """The session that *text* says; empty lines and comments are skipped. Raises ValueError with the line."""
    lines = [line.strip() for line in text.splitlines()]
    return Session([_parse(line) for line in lines if line and not line.startswith("#")])


def _parse(line: str) -> Action:
    try:
        call = ast.parse(line, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("expected name(key=value, ...)")
        kind = _BY_WORD[call.func.id]
        return kind(**{str(word.arg): ast.literal_eval(word.value) for word in call.keywords})
    except (ValueError, TypeError, KeyError, SyntaxError) as e:
        raise ValueError(f"{line!r} is no action: {e}") from e


def _word(kind: type[Action]) -> str:
    name = kind.__name__
    return name[0].lower() + "".join(f"_{c.lower()}" if c.isupper() else c for c in name[1:])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)


_BY_WORD = {_word(kind): kind for kind in ACTIONS}
