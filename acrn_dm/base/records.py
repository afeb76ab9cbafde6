"""Records: attrs classes whose comparison, hash and text are common to all, instead of code that is written for each.

attrs writes the source of a class's methods and compiles it when the class is made: that was nearly half of a start.
``define`` and ``frozen`` are attrs's own but for ``__eq__``, ``__hash__`` and ``__repr__``, which say the same here and
take some times as long to call: for what is compared, hashed or shown now and then. What is compared at each access or
interrupt (``base.irq``, ``pci``, ``ring``) is attrs's own.
"""

import reprlib
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from attrs import define, frozen

__all__ = ["define", "frozen"]


def _values(record: Any) -> tuple[object, ...]:
    """What of *record* is compared."""
    fields = attrs.fields(type(record))
    return tuple((a.eq_key or _same)(getattr(record, a.name)) for a in fields if a.eq)


def _same(value: object) -> object:
    return value


def _equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


@reprlib.recursive_repr("...")
def _text(self: Any) -> str:
    shown = []
    for a in attrs.fields(type(self)):
        if a.repr:
            say = repr if a.repr is True else a.repr
            shown.append(f"{a.name}={say(getattr(self, a.name, attrs.NOTHING))}")
    return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(shown)})"


def _common(cls: type, options: dict[str, Any], *, hashed: bool) -> None:
    """Give *cls* what it has not itself; attrs leaves such methods alone."""
    own = vars(cls)
    methods: dict[str, Any] = {"__repr__": _text} if options.get("repr") is not False else {}
    if options.get("eq") is not False and "__eq__" not in own:
        methods |= {"__eq__": _equal, "__hash__": _hash if hashed else None}
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)


if not TYPE_CHECKING:

    def define(cls=None, **options):
        """``attrs.define``."""
        if cls is None:
            return lambda cls: define(cls, **options)
        _common(cls, options, hashed=False)
        return attrs.define(cls, **options)

    def frozen(cls=None, **options):
        """``attrs.frozen``."""
        if cls is None:
            return lambda cls: frozen(cls, **options)
        _common(cls, options, hashed=True)
        return attrs.frozen(cls, **options)
