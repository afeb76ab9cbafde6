"""Records: attrs classes that are made without compiling source text.

attrs writes the source of a class's methods and compiles it when the class is made: that was nearly half of a start.
``define`` and ``frozen`` are attrs's own for type checkers, and mean the same: slots, arguments, comparison, hash and
text. Here one ``__init__`` for all reads what a class says of its fields. A class is made in a twentieth of the time,
an instance in twice as much, so this is for what is made and compared now and then; what is made for each request or
interrupt (``MsiMessage``, ``ring``, ``virtio_blk.job``) is attrs's own.

What attrs knows of a class (``attrs.fields``, so ``evolve`` and ``asdict``), its signature, and what is said of wrong
arguments are attrs's, from a class that it makes of the same fields when it is asked. What few classes need
(setters, an order, fields of a base class that attrs has made) is not done here: attrs makes those classes, as ever.
"""

import inspect
import itertools
import operator
import reprlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import attrs

if TYPE_CHECKING:
    from attrs import define, frozen

__all__ = ["define", "frozen"]

_FIELD = type(attrs.field())
_FACTORY: type[Any] = attrs.Factory  # type: ignore[assignment]  # a function, as type checkers have it
_READ_ONLY = vars(attrs.frozen(type("_ReadOnly", (), {})))  # what refuses to set; attrs knows it again in a base class
_OPTIONS = {"kw_only", "eq", "repr"}
_OWN_WAYS = {"__init__", "__setattr__", "__delattr__", "__slots__", "__getattr__", "__attrs_pre_init__"}
_CONVERTER = getattr(attrs, "Converter", ())  # which gets the instance, too; a newer one's
_PLACES = ("__dict__", "__weakref__")  # where the instances of a class that has no slots have theirs


class _Record:
    """The fields of one class, and what its methods read of them; all of that when it is first asked for."""

    def __init__(self, cls: type, own: dict[str, Any], kinds: dict[str, Any], options: dict[str, Any]) -> None:
        above: _Record | None = getattr(cls, "__record__", None)
        self.made: Any = cls  # with slots, as soon as it is made
        self.own, self.options = own, options
        self.given: dict[str, Any] = {**above.given, **own} if above else own
        self.kinds: dict[str, Any] = {**above.kinds, **kinds} if above else kinds
        free = [] if options.get("kw_only") else self.given.items()
        self.unnamed = [name for name, field in free if _is_unnamed(field)]  # what may come without a name
        self.initializer = _initializer(self, hasattr(cls, "__attrs_post_init__"))

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What ``attrs.field`` has made, by name and in order."""
        return {n: f if type(f) is _FIELD else attrs.field(default=f) for n, f in self.given.items()}

    @cached_property
    def steps(self) -> list[tuple[str, str | None, Any, Any]]:
        """What is done for each field: its name, that of its argument, its default, its converter."""
        return [
            (name, (f.alias or name.lstrip("_")) if f.init else None, f._default, f.converter)
            for name, f in self.fields.items()
        ]

    @cached_property
    def validators(self) -> list[Any]:
        """The fields that have a check, as attrs has them."""
        if all(f._validator is None for f in self.fields.values()):
            return []
        return [a for a in self.attributes if a.validator is not None]

    @cached_property
    def compared(self) -> list[tuple[str, Callable[[Any], object]]]:
        """The names of what is compared, and what makes a key of the value."""
        return [(name, f.eq_key or _same) for name, f in self.fields.items() if f.eq]

    def answers(self) -> dict[str, Any]:
        """What a class has of this record."""
        return {
            "__record__": self,
            "__init__": self.initializer,
            "__match_args__": tuple(self.unnamed),
            "__signature__": _Signature(self),
            "__attrs_attrs__": _Fields(self),
        }

    def by_attrs(self, **options: Any) -> Any:
        """A class that attrs makes of the same fields."""
        names = {name: getattr(self.made, name) for name in ("__qualname__", "__module__")}
        bare = type(self.made.__name__, (), names | self.fields | {"__annotations__": self.kinds})
        return attrs.define(bare, **self.options | {"slots": False, "eq": False, "repr": False} | options)

    @cached_property
    def attributes(self) -> tuple[Any, ...]:
        """The fields as attrs has them. It makes them before it compiles, which is not waited for."""
        try:
            self.by_attrs(field_transformer=_keep)
        except _KeptError as e:
            found = [a.evolve(alias=a.alias or a.name.lstrip("_"), inherited=a.name not in self.own) for a in e.fields]
        names = {a.name: property(operator.itemgetter(i)) for i, a in enumerate(found)}
        return type(f"{self.made.__name__}Attributes", (tuple,), names)(found)  # type: ignore[no-any-return]

    def refuse(self, args: tuple[object, ...], given: dict[str, object]) -> NoReturn:
        """Raise attrs's TypeError for arguments that are not those of the class."""
        self.by_attrs()(*args, **given)
        raise AssertionError(f"attrs takes these arguments of {self.made.__qualname__}")

    def named(self, args: tuple[object, ...], given: dict[str, object]) -> dict[str, object]:
        """All arguments by name. Raises TypeError."""
        names = [argument for name, argument, *_ in self.steps if argument and name in self.unnamed]
        if len(names) < len(args) or not given.keys().isdisjoint(names[: len(args)]):
            self.refuse(args, given)
        return dict(zip(names, args, strict=False)) | given

    def check(self, instance: object) -> None:
        """Raise what the validators of *instance* do."""
        if self.validators and not attrs.validators.get_disabled():
            for a in self.validators:
                a.validator(instance, a, getattr(instance, a.name))


class _KeptError(Exception):
    """The end of attrs's work on a class, with the *fields* that it has made."""

    def __init__(self, fields: list[Any]) -> None:
        self.fields = fields


def _keep(cls: type, fields: list[Any]) -> NoReturn:
    raise _KeptError(fields)


class _Fields:
    """``__attrs_attrs__``: the fields as attrs has them."""

    def __init__(self, record: _Record) -> None:
        self._record = record

    def __get__(self, instance: object, owner: type) -> Any:
        return self._record.attributes


class _Signature:
    """``__signature__`` of a class, but not of its instances, nor of a class below that is made in another way."""

    def __init__(self, record: _Record) -> None:
        self._record = record

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None or owner.__init__ is not self._record.initializer:  # type: ignore[misc]
            raise AttributeError("__signature__")
        return inspect.signature(self._record.by_attrs())


def _same(value: object) -> object:
    return value


def _values(instance: Any) -> tuple[object, ...]:
    """What of a record is compared."""
    return tuple(key(getattr(instance, name)) for name, key in instance.__record__.compared)


def _equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


@reprlib.recursive_repr("...")
def _text(self: Any) -> str:
    shown = []
    for name, f in self.__record__.fields.items():
        if f.repr:
            say = repr if f.repr is True else f.repr
            shown.append(f"{name}={say(getattr(self, name, attrs.NOTHING))}")
    return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(shown)})"


def _state(self: Any) -> dict[str, object]:
    return {name: getattr(self, name) for name in self.__record__.fields}


def _set_state(self: Any, state: dict[str, object]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)


def _initializer(record: _Record, finish: bool) -> Callable[..., None]:
    """``__init__`` of the class of *record*; *finish*: it has an ``__attrs_post_init__``."""
    put, nothing = object.__setattr__, attrs.NOTHING

    def __init__(self: Any, /, *args: object, **given: object) -> None:
        named = record.named(args, given) if args else given
        left = len(named)
        for name, argument, default, converter in record.steps:
            if argument in named:
                value = named[argument]
                left -= 1
            elif default is nothing:
                if argument is None:
                    continue
                record.refuse(args, given)
            elif isinstance(default, _FACTORY):
                value = default.factory(self) if default.takes_self else default.factory()
            else:
                value = default
            put(self, name, value if converter is None else converter(value))
        if left:
            record.refuse(args, given)
        record.check(self)
        if finish:
            self.__attrs_post_init__()

    return __init__


def _is_unnamed(field: Any) -> bool:
    """Whether *field* may come by its place, where its class has no word on it."""
    return type(field) is not _FIELD or (field.init and not field.kw_only)


def _of_class(kind: object) -> bool:
    """Whether *kind*, an annotation, is a ClassVar."""
    return "ClassVar" in kind if isinstance(kind, str) else getattr(kind, "__origin__", kind) is ClassVar


def _only_attrs_can(record: _Record, *, read_only: bool) -> bool:
    """Whether the class of *record* needs what is not done here."""
    own, fields = vars(record.made), [f for f in record.given.values() if type(f) is _FIELD]
    return (
        not record.options.keys() <= _OPTIONS
        or not _OWN_WAYS.isdisjoint(own)
        or any(type(value) is _FIELD and name not in record.given for name, value in own.items())
        or any(map(_special, fields))
        or (not read_only and any(f.converter or f._validator for f in fields))
        or (not record.options.get("kw_only") and _out_of_order(record.given.values()))
        or any(isinstance(value, cached_property) for value in own.values())
        or any(_stands_in_the_way(base, record, read_only=read_only) for base in record.made.__mro__[1:-1])
    )


def _special(f: Any) -> bool:
    """Whether *f*, made by ``attrs.field``, asks for more than a default, a function to convert or to check with."""
    return f.on_setattr is not None or f.hash is not None or isinstance(f.converter, _CONVERTER)


def _out_of_order(fields: Iterable[Any]) -> bool:
    """Whether an argument without default follows one that has it; attrs says so."""
    defaults = [f._default if type(f) is _FIELD else f for f in fields if _is_unnamed(f)]
    return any(late is attrs.NOTHING and early is not attrs.NOTHING for early, late in itertools.pairwise(defaults))


def _tell_methods(made: type, before: type) -> None:
    """Have methods of *made* that say ``super()`` mean it: they were compiled for the class that was *before*."""
    for value in vars(made).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        names = getattr(getattr(function, "__code__", None), "co_freevars", ())
        if "__class__" in names:
            cell = function.__closure__[names.index("__class__")]
            if cell.cell_contents is before:
                cell.cell_contents = made


def _stands_in_the_way(base: type, record: _Record, *, read_only: bool) -> bool:
    """Whether *base* has fields that are not handed down as those of a record are, or ways of its own to set them."""
    own = vars(base)
    if not record.own.keys().isdisjoint(own.get("__slots__", ())):
        return True
    if "__record__" in own:
        alike = own["__record__"].options == record.options and (own.get("__setattr__") is not None) is read_only
        return not alike or list(record.given)[: len(own["__record__"].given)] != list(own["__record__"].given)
    return issubclass(base, BaseException) or any(
        name in own for name in ("__attrs_attrs__", "__setattr__", "__attrs_init_subclass__")
    )


def _record(cls: type, options: dict[str, Any]) -> _Record:
    """What *cls*, and the nearest record above it, say of fields: values, what ``attrs.field`` has made, or NOTHING."""
    kinds = {name: kind for name, kind in cls.__annotations__.items() if not _of_class(kind)}
    own = {name: vars(cls).get(name, attrs.NOTHING) for name in kinds}
    return _Record(cls, own, kinds, options)


def _made(cls: type, options: dict[str, Any], *, read_only: bool) -> Any:
    """The record that *cls* describes; None where only attrs makes it."""
    record = _record(cls, options)
    if _only_attrs_can(record, read_only=read_only):
        return None
    common: dict[str, Any] = {"__getstate__": _state, "__setstate__": _set_state}
    if options.get("repr") is not False:
        common["__repr__"] = _text
    if options.get("eq") is not False and "__eq__" not in vars(cls):
        common |= {"__eq__": _equal, "__hash__": _hash if read_only else None}
    if read_only:
        common |= {name: _READ_ONLY[name] for name in ("__setattr__", "__delattr__")}
    weak = () if any(base.__weakrefoffset__ for base in cls.__bases__) else ("__weakref__",)
    own = {name: value for name, value in vars(cls).items() if name not in record.own and name not in _PLACES}
    body = common | own | record.answers() | {"__slots__": (*record.own, *weak), "__qualname__": cls.__qualname__}
    record.made = type(cls)(cls.__name__, cls.__bases__, body)
    _tell_methods(record.made, cls)
    return record.made


if not TYPE_CHECKING:

    def define(cls=None, **options):
        """``attrs.define``."""
        if cls is None:
            return lambda cls: define(cls, **options)
        return _made(cls, options, read_only=False) or attrs.define(cls, **options)

    def frozen(cls=None, **options):
        """``attrs.frozen``."""
        if cls is None:
            return lambda cls: frozen(cls, **options)
        return _made(cls, options, read_only=True) or attrs.frozen(cls, **options)
