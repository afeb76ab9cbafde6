"""acrn_dm.contract.options: option classes from strings and tables, and their help."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.options import describe, from_mapping, option, parse_options


def _even(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value % 2:
        raise ValueError(f"{attribute.name} {value} is odd")


@attrs.frozen(kw_only=True)
class Options:
    path: Path = option(help="what to open")
    size: int = option(default=4, help="how much", validator=_even)
    label: str | None = option(default=None, help="a name")
    read_only: bool = option(default=False, help="never write")


def test_all_kinds_of_values_are_read() -> None:
    got = parse_options(Options, "path=/tmp/x,size=0x10,label=a b,read-only", "dev")
    assert got == Options(path=Path("/tmp/x"), size=16, label="a b", read_only=True)


def test_toml_values_keep_their_types() -> None:
    assert from_mapping(Options, {"path": "p", "size": 6, "read_only": False}, "dev").size == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "option 'path' is required"),
        ("path=a,colour=red", "unknown option 'colour'; known: path, size, label, read_only"),
        ("path=a,path=b", "given twice"),
        ("path", "a value is missing"),
        ("path=", "a value is missing"),
        ("path=a,size=many", "expected a whole number"),
        ("path=a,size=3", "size 3 is odd"),
        ("path=a,read_only=perhaps", "expected on or off"),
    ],
)
def test_wrong_option_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse_options(Options, text, "-s 3,dev")
    assert message in str(e.value)
    assert "-s 3,dev" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("word", "value"), [("on", True), ("yes", True), ("1", True), ("off", False), ("No", False)])
def test_switch_words(word: str, value: bool) -> None:
    assert parse_options(Options, f"path=a,read_only={word}", "dev").read_only is value


def test_describe_tells_name_value_default_and_text() -> None:
    rows: list[tuple[Any, ...]] = [attrs.astuple(line)[:4] for line in describe(Options)]
    assert rows == [
        ("path", "PATH", "required", "what to open"),
        ("size", "N", "4", "how much"),
        ("label", "TEXT", "none", "a name"),
        ("read_only", "on|off", "off", "never write"),
    ]
