"""Option classes: attrs classes whose fields are the options of a device, with the help text beside each.

``option`` declares one, ``parse_options`` reads the common ``key=value,flag`` form into such a class,
``from_mapping`` a TOML table, ``describe`` makes the help; ``option_types`` has the types that a field may have,
``option_text`` how values with commas are written. A
class with a grammar of its own (the original's ``virtio-blk``) brings a classmethod ``from_string`` and a ClassVar
``GRAMMAR``, one line of text for the help; everything else is the same for it.
"""

import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.base.sockets.paths import path_problem
from acrn_dm.contract.option_text import did_you_mean, option_meant, split_options
from acrn_dm.contract.option_types import OptionValue, option_value

__all__ = [
    "OptionHelp",
    "construct",
    "describe",
    "did_you_mean",
    "from_mapping",
    "option",
    "parse_options",
    "vhost_user_option",
    "check_types",
]

C = TypeVar("C")


def option(
    *,
    help: str,  # the word the user sees
    default: object = attrs.NOTHING,
    validator: Callable[..., object] | Sequence[Callable[..., object]] | None = None,
    converter: Callable[..., object] | None = None,
    metavar: str | None = None,
    hidden: bool = False,
) -> Any:  # as attrs.field: the type that the field is declared with
    """Declare one option; *help* is one sentence, *metavar* what stands for its value in the help.

    The field's type says how its value is read: bool, int, float, ``ByteSize`` (4096, 4k, 1G), str, Path, an Enum, a
    Literal, and ``list[T]`` or ``tuple[T, ...]`` of these, for which the option may be given several times; each with
    ``| None``. With a *converter* it may be any. A kind of device with another type is refused when it is offered.

    ========================  ======================================================================  ================
    type                      what the user writes                                                    in the help
    ========================  ======================================================================  ================
    ``bool``                  the bare name; ``=on``, ``off``, ``true``, ``false``, ``yes``, ``no``   the name
    ``int``                   ``12``, ``0xc``, ``0o14``, ``0b1100``                                   ``N``
    ``float``                 ``0.5``, ``1e-3``; finite                                               ``NUMBER``
    ``ByteSize``              ``4096``, ``4k``, ``1G``                                                ``BYTES``
    ``str``                   any text                                                                ``TEXT``
    ``Path``                  a path; ``~`` is the home directory                                     ``PATH``
    an Enum, a Literal        one of its words                                                        ``one|two``
    ``list``, ``tuple``       the option several times; in TOML an array                              as the element
    ========================  ======================================================================  ================

    On a command line a comma ends the value; ``,,`` is a comma in it. An error names the option and shows the value; a
    *validator* or *converter* says what is wrong by ValueError. A name that other programs have for the option
    (``readonly``, ``ifname``) is answered with ours.
    """
    metadata = {"help": help, "metavar": metavar, "hidden": hidden}
    return attrs.field(default=default, validator=validator, converter=converter, metadata=metadata)


def vhost_user_option() -> Path | None:
    """Declare ``vhost_user``, which all devices have that can leave their data plane to another process."""
    text = "Socket of the vhost-user process that moves the data."
    made: Path | None = option(default=None, validator=_socket_path, help=text)
    return made


def socket_option(text: str) -> Path:
    """Declare an option that has to be the path of a socket, with *text* as its help."""
    made: Path = option(validator=_socket_path, help=text)
    return made


@frozen(kw_only=True)
class OptionHelp:
    """One line of a device's help."""

    name: str
    metavar: str
    default: str
    text: str
    values: str = ""  # what the type of the option allows, in words; empty where the option has a way of its own


def describe(config: type) -> tuple[OptionHelp, ...]:
    """The visible options of *config*, in order of declaration."""
    lines = []
    hints = typing.get_type_hints(config)
    for field in attrs.fields(config):
        if not field.init or field.metadata.get("hidden"):
            continue
        default = "required" if field.default is attrs.NOTHING else _show(field.default)
        metavar = field.metadata.get("metavar") or _metavar(hints[field.name])
        text = str(field.metadata.get("help") or "")
        own = field.converter is not None or bool(field.metadata.get("metavar"))
        kind = None if own else _value_of(hints[field.name])
        values = kind.about if kind is not None else ""
        lines.append(OptionHelp(name=field.name, metavar=metavar, default=default, text=text, values=values))
    return tuple(lines)


def parse_options(config: type[C], text: str, what: str) -> C:
    """Read ``key=value,flag`` into *config*; *what* names the device in errors. Raises ConfigError."""
    repeated = _repeated(config)
    values: dict[str, object] = {}
    for token in filter(None, split_options(text)):
        key, eq, value = token.partition("=")
        if key.replace("-", "_") in repeated:
            values[key] = (*typing.cast("tuple[object, ...]", values.get(key, ())), value if eq else True)
            continue
        if key in values:
            raise ConfigError(f"option {key!r} is given twice", option=what)
        values[key] = value if eq else True
    return from_mapping(config, values, what)


def from_mapping(config: type[C], values: Mapping[str, object], what: str) -> C:
    """Build *config* from names and values (text or TOML's own types). Raises ConfigError naming option and choices."""
    hints = typing.get_type_hints(config)
    fields = {f.name: f for f in attrs.fields(typing.cast("type[attrs.AttrsInstance]", config)) if f.init}
    arguments = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            known = f"known: {', '.join(fields) or 'none'}"
            raise ConfigError(f"unknown option {key!r}; {option_meant(name, fields)}{known}", option=what)
        if name in arguments:
            raise ConfigError(f"option {key!r} is given twice", option=what)
        kind = None if fields[name].converter is not None else _value_of(hints[name])
        arguments[name] = value if kind is None else kind.read(value, f"{what} {key}")
    missing = [n for n, f in fields.items() if f.default is attrs.NOTHING and n not in arguments]
    if missing:
        raise ConfigError(f"option {missing[0]!r} is required", option=what)
    return construct(config, arguments, what)


def check_types(config: type) -> None:
    """Raise TypeError, with the field's name and the reason, for an option that nothing could be read into."""
    if not attrs.has(config):
        return
    hints = typing.get_type_hints(config)
    for field in attrs.fields(config):
        if field.init and field.converter is None and not hasattr(config, "from_string"):
            try:
                option_value(hints[field.name])
            except TypeError as e:
                raise TypeError(f"option {field.name!r}: {e}") from None


def construct(config: Callable[..., C], arguments: Mapping[str, object], what: str) -> C:
    """Call an option class; a validator's ValueError or TypeError becomes a ConfigError that names *what*."""
    try:
        return config(**arguments)
    except (ValueError, TypeError) as e:
        text = str(e.args[0]) if e.args else str(e)
        name = _refused(config, arguments, text)
        if name is None or str(arguments[name]) in text or "'" in text:  # it shows a value
            raise ConfigError(text, option=what) from e
        raise ConfigError(text, option=f"{what} {name}", value=arguments[name]) from e


def _refused(config: Callable[..., object], arguments: Mapping[str, object], text: str) -> str | None:
    """The option whose converter or validator says *text* of its value; None where it is not one's alone."""
    fields = attrs.fields_dict(config) if isinstance(config, type) and attrs.has(config) else {}
    for name in arguments.keys() & fields.keys():
        converter, validator = fields[name].converter, fields[name].validator
        try:
            value = converter(arguments[name]) if callable(converter) else arguments[name]
            if validator is not None:
                validator(None, fields[name], value)
        except Exception as e:
            if e.args and str(e.args[0]) == text:
                return name
    return None


def _socket_path(instance: object, attribute: "attrs.Attribute[Path | None]", value: Path | None) -> None:
    problem = None if value is None else path_problem(value)
    if problem is not None:
        raise ValueError(f"{attribute.name} {str(value)!r}: {problem}")


def _metavar(hint: object) -> str:
    kind = _value_of(hint)
    return "VALUE" if kind is None else kind.metavar


def _value_of(hint: object) -> OptionValue | None:
    """How the type is read; None for one that only a grammar of its class's own can make."""
    try:
        return option_value(hint)
    except TypeError:
        return None


def _repeated(config: type) -> frozenset[str]:
    """Options that may be given several times."""
    hints = typing.get_type_hints(config)
    kinds = {f.name: _value_of(hints[f.name]) for f in attrs.fields(config) if f.init and f.converter is None}
    return frozenset(name for name, kind in kinds.items() if kind is not None and kind.many)


def _show(default: object) -> str:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class; a function for its type stubs
        return "computed"
    if default is None or default == () or attrs.has(type(default)):
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)
