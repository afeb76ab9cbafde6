"""Configuration files: the long options' names as keys, ``name``, and the tables ``[[device]]`` and ``[[uart]]``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.cli import values
from acrn_dm.cli.arguments import Setting
from acrn_dm.cli.grammar import Option, Table, key_of
from acrn_dm.cli.parse import Layer
from acrn_dm.contract.config import DeviceSpec, UartSpec
from acrn_dm.contract.options import did_you_mean
from acrn_dm.pci.place import parse_bdf

MAX_FILE = 1 << 20  # bytes; whoever needs more has named the wrong file
OWN_KEYS = ("name", "device", "uart")
UART_KEYS = {"port": (str, int), "backend": (str,), "io_base": (int,), "irq": (int,), "wait": (bool,)}
TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@frozen(kw_only=True)
class Document:
    """A file that was read, before anybody knows what its keys mean."""

    path: Path
    table: Mapping[str, Any]

    def where(self, key: str) -> str:
        """How errors name *key*."""
        return f"{self.path}: {key}"


def read(path: Path) -> Document:
    """Read *path*. Raises ConfigError."""
    import tomllib  # noqa: PLC0415  # most starts have no file

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as e:
        raise ConfigError(e.strerror or str(e), option="--config", value=str(path)) from e
    if len(data) > MAX_FILE:
        raise ConfigError(f"the file is larger than {MAX_FILE} bytes", option="--config", value=str(path))
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as e:
        text = "nested too deeply" if isinstance(e, RecursionError) else " ".join(str(e).split())
        raise ConfigError(f"not TOML: {text}", option=str(path)) from None
    document = Document(path=path, table=table)
    for key, value in table.items():
        if any("\0" in text for text in _strings(value)):
            raise ConfigError("a NUL character", option=document.where(key))
    return document


def settings(document: Document, table: Table, only: frozenset[str] | None = None) -> list[Setting]:
    """The options in *document*; *only* those of these keys when given, and then nothing else is looked at."""
    known = table.by_key()
    found: list[Setting] = []
    seen: set[str] = set()
    for key, value in document.table.items():
        plain = key_of(key)
        if key in OWN_KEYS or (only is not None and plain not in only):
            continue
        if plain not in known:
            raise _unknown_key(document, key, table)
        if plain in seen:
            raise ConfigError("the key is given twice, with '-' and with '_'", option=document.where(key))
        seen.add(plain)
        found += _settings(known[plain], value, document.where(key))
    return found


def layer(document: Document, table: Table) -> Layer:
    """All that *document* says. Raises ConfigError that names the file and the key."""
    name = document.table.get("name")
    if name is not None:
        _expect(name, (str,), document.where("name"))
    return Layer(
        settings=settings(document, table),
        devices=[_device(t, where) for t, where in _tables(document, "device")],
        uarts=[_uart(t, where) for t, where in _tables(document, "uart")],
        names=() if name is None else (name,),
        file=str(document.path),
    )


def _settings(option: Option, value: Any, where: str) -> list[Setting]:
    """One setting, or for an array with an option that may be repeated one for each element."""
    if option.metavar is None:
        _expect(value, (bool,), where)
        return [Setting(option=option, value=value, origin=where, from_argv=False)]
    elements = value if isinstance(value, list) and (option.repeat or option.listing) else [value]
    for element in elements:
        _expect(element, (str, *option.toml), where)
    texts = [str(element) for element in elements]
    if option.listing and isinstance(value, list):
        texts = [",".join(texts)]
    return [Setting(option=option, value=text, origin=where, from_argv=False) for text in texts]


def _device(table: dict[str, Any], where: str) -> DeviceSpec:
    """``slot``, ``type``, perhaps ``boot``; then ``options``, a string as behind ``-s``, or the options as keys."""
    rest = dict(table)
    slot, kind = _take(rest, "slot", (str, int), where), _take(rest, "type", (str,), where)
    boot = _take(rest, "boot", (bool,), where, False)
    text = _take(rest, "options", (str,), where, None)
    if text is not None and rest:
        raise ConfigError(f"either 'options' or options as keys, here {next(iter(rest))!r}", option=where)
    try:
        place = parse_bdf(str(slot))
        values.device_name(kind)
    except ValueError as e:
        raise ConfigError(str(e), option=where) from None
    origin = f"{where} ({place}, {kind})"
    return DeviceSpec(bdf=place, kind=kind, text=text or "", table=rest or None, bootable=boot, origin=origin)


def _uart(table: dict[str, Any], where: str) -> UartSpec:
    rest = dict(table)
    port, backend, io_base, irq, wait = (_take(rest, key, types, where, None) for key, types in UART_KEYS.items())
    if rest:
        hint = did_you_mean(next(iter(rest)), UART_KEYS)
        raise ConfigError(f"unknown key {next(iter(rest))!r}; {hint}known: {', '.join(UART_KEYS)}", option=where)
    try:
        number = values.com_port(f"com{port}" if isinstance(port, int) else port or "")
        if number < 5 and (io_base, irq) != (None, None):
            raise ValueError("only com5 has an io_base and an irq of its own")
        if (io_base is None) != (irq is None):
            raise ValueError("io_base and irq go together")
        return values.uart_at(number, values.uart_backend(backend or ""), io_base or 0, irq or 0, wait=bool(wait))
    except ValueError as e:
        raise ConfigError(str(e), option=where) from None


_REQUIRED = object()


def _take(table: dict[str, Any], key: str, types: tuple[type, ...], where: str, default: Any = _REQUIRED) -> Any:
    """Remove *key* from *table* and return its value. Raises ConfigError when it is missing or of another type."""
    if key not in table:
        if default is _REQUIRED:
            raise ConfigError(f"the key {key!r} is required", option=where)
        return default
    value = table.pop(key)
    _expect(value, types, f"{where}: {key}")
    return value


def _expect(value: Any, types: tuple[type, ...], where: str) -> None:
    # bool is an int to Python, not to the user
    if (isinstance(value, bool) and bool not in types) or not isinstance(value, types):
        allowed = " or ".join(TYPE_NAMES[t] for t in types)
        shown = value if isinstance(value, str | int | float) else None
        raise ConfigError(f"expected {allowed}", option=where, value=shown)


def _tables(document: Document, key: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The tables of ``[[key]]``, each with how errors name it."""
    found = document.table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
        raise ConfigError(f"expected tables, each under [[{key}]]", option=document.where(key))
    for number, table in enumerate(found, 1):
        yield table, document.where(f"{key} {number}")


def _unknown_key(document: Document, key: str, table: Table) -> ConfigError:
    if key_of(key) in {key_of(o.name) for o in table.options}:
        return ConfigError("only for the command line", option=document.where(key))
    hint = did_you_mean(key, [*OWN_KEYS, *(o.name for o in table.options if o.in_file)])
    return ConfigError(f"unknown key; {hint}the keys are the long options of --help", option=document.where(key))


def _strings(value: Any) -> Iterator[str]:
    """Every text in *value*, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
