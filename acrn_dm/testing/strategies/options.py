"""Options of an option class as a strategy: each of its types, its defaults left out at times, its validators kept."""

import enum
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from hypothesis import strategies as st

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.option_types import ByteSize, without_none
from acrn_dm.contract.options import from_mapping

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-./ ", min_size=1, max_size=12)
SIZES = st.integers(0, 1 << 40) | st.builds(lambda n, unit: f"{n}{unit}", st.integers(0, 4096), st.sampled_from("kMG"))
SCALARS: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(1 << 40), 1 << 40) | st.integers(0, 64),
    float: st.floats(-1e6, 1e6, allow_nan=False),
    ByteSize: SIZES,
    str: WORDS,
    Path: WORDS.map(lambda word: f"/{word.strip()}"),
}


def options(config: type, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, object]]:
    """Mappings that the option class *config* takes, as a TOML table or ``SimMachine.add(kind, mapping)`` has them.

    Each field is left out at times where it has a default. Values that a validator refuses are not drawn; where it
    takes few, say which by the field's name: ``options(MyConfig, rate=st.integers(1, 100))``. Raises TypeError for a
    field whose type has no values here and that is not *given*.
    """
    hints = typing.get_type_hints(config)
    fields = {field.name: field for field in attrs.fields(config) if field.init}
    drawn = {name: given[name] if name in given else _values(hints[name]) for name in fields}
    needed = {name: drawn[name] for name, field in fields.items() if field.default is attrs.NOTHING}
    optional = {name: drawn[name] for name in fields if name not in needed}
    tables: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(needed, optional=optional)
    return tables.filter(lambda table: _takes(config, table))


def _takes(config: type, table: Mapping[str, object]) -> bool:
    try:
        from_mapping(config, table, "a strategy")
    except ConfigError:
        return False
    return True


def _values(hint: object) -> st.SearchStrategy[Any]:
    hint = without_none(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    if typing.get_origin(hint) in (list, tuple):
        return st.lists(_values(typing.get_args(hint)[0]), min_size=1, max_size=3)
    raise TypeError(f"a field of type {hint} needs a strategy of its own")
