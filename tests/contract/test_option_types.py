"""contract.option_types: what is read into each type that an option may have, and what is refused."""

import enum
from pathlib import Path
from typing import Literal

import attrs
import pytest

from acrn_dm import ByteSize, DeviceType, hookimpl, option
from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.contract.option_types import option_value
from acrn_dm.contract.options import describe, from_mapping, parse_options
from acrn_dm.contract.plugins import make_plugin_manager


class Mode(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen(kw_only=True)
class Options:
    rate: float = option(default=1.0, help="how often")
    size: ByteSize = option(default=ByteSize(4096), help="how much")
    mode: Mode = option(default=Mode.FAST, help="how")
    level: Level | None = option(default=None, help="how far")
    bus: Literal["pci", "mmio"] = option(default="pci", help="where")
    lanes: Literal[0, 1, 2] = option(default=1, help="how wide")
    files: tuple[Path, ...] = option(default=(), help="which")
    sizes: list[ByteSize] | None = option(default=None, help="each")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("rate=2.5", "rate", 2.5),
        ("rate=3", "rate", 3.0),
        ("size=0x1000", "size", 4096),
        ("size=4k", "size", 4096),
        ("size=3M", "size", 3 << 20),
        ("size=1g", "size", 1 << 30),
        ("size=2T", "size", 2 << 40),
        ("mode=safe", "mode", Mode.SAFE),
        ("level=high", "level", Level.HIGH),
        ("bus=mmio", "bus", "mmio"),
        ("lanes=0", "lanes", 0),
        ("files=a", "files", (Path("a"),)),
        ("files=a,rate=1,files=b", "files", (Path("a"), Path("b"))),
        ("sizes=1k,sizes=2k", "sizes", [1024, 2048]),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(text: str, name: str, value: object) -> None:
    got = getattr(parse_options(Options, text, "dev"), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ({"rate": 2}, "rate", 2.0),
        ({"size": 4096}, "size", 4096),
        ({"lanes": 2}, "lanes", 2),
        ({"level": "low"}, "level", Level.LOW),
        ({"files": ["a", "b"]}, "files", (Path("a"), Path("b"))),
        ({"files": "a"}, "files", (Path("a"),)),
        ({"sizes": [1, "1k"]}, "sizes", [1, 1024]),
    ],
)
def test_value_of_toml_becomes_one_of_the_declared_type(table: dict[str, object], name: str, value: object) -> None:
    got = getattr(from_mapping(Options, table, "dev"), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate=fast", "-s 3,dev rate: 'fast': expected a number"),
        ("rate=nan", "-s 3,dev rate: 'nan': expected a number"),
        ("rate=1e999", "-s 3,dev rate: '1e999': expected a number"),
        ("rate", "-s 3,dev rate: a value is missing; write it behind '='"),
        ("size=4x", "-s 3,dev size: '4x': expected a number of bytes, such as 4096, 4k or 1G"),
        ("size=-1", "-s 3,dev size: '-1': expected a number of bytes, such as 4096, 4k or 1G"),
        ("size=k", "-s 3,dev size: 'k': expected a number of bytes, such as 4096, 4k or 1G"),
        ("mode=FAST", "-s 3,dev mode: 'FAST': expected one of fast, safe"),
        ("level=2", "-s 3,dev level: '2': expected one of low, high"),
        ("bus=usb", "-s 3,dev bus: 'usb': expected one of pci, mmio"),
        ("lanes=3", "-s 3,dev lanes: '3': expected one of 0, 1, 2"),
        ("sizes=1,sizes=x", "-s 3,dev sizes: 'x': expected a number of bytes, such as 4096, 4k or 1G"),
        ("files", "-s 3,dev files: a value is missing; write it behind '='"),
    ],
)
def test_wrong_value_is_one_line_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_options(Options, text, "-s 3,dev")
    assert str(error.value) == message


def test_toml_boolean_is_no_number() -> None:
    with pytest.raises(ConfigError, match="expected a number"):
        parse_options(Options, "rate=true", "dev")
    with pytest.raises(ConfigError, match="expected one of 0, 1, 2"):
        from_mapping(Options, {"lanes": False}, "dev")


def test_help_shows_what_can_be_given() -> None:
    shown = {line.name: line.metavar for line in describe(Options)}
    assert shown == {
        "rate": "NUMBER",
        "size": "BYTES",
        "mode": "fast|safe",
        "level": "low|high",
        "bus": "pci|mmio",
        "lanes": "0|1|2",
        "files": "PATH, may be repeated",
        "sizes": "BYTES, may be repeated",
    }


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (dict, "dict can't be read from a command line: give the option a converter, or another type"),
        (int | str, "int | str can't be read from a command line: give the option a converter, or another type"),
        (
            tuple[int, int],
            "tuple[int, int] has a fixed length: declare tuple[T, ...] and check the length in a validator",
        ),
        (list[list[int]], "list[list[int]] has lists in a list, which no command line can say: give it a converter"),
    ],
)
def test_type_that_nothing_can_be_read_into_says_why(hint: object, reason: str) -> None:
    with pytest.raises(TypeError) as error:
        option_value(hint)
    assert str(error.value) == reason


@attrs.frozen(kw_only=True)
class Unreadable:
    table: dict[str, int] = option(default=None, help="a table")


@attrs.frozen(kw_only=True)
class Converted:
    table: dict[str, int] = option(default=None, converter=lambda text: {text: 1}, help="a table")


class Kinds:
    """A plugin with one kind of device."""

    __name__ = "kinds"

    def __init__(self, config: type) -> None:
        self.config = config

    @hookimpl
    def acrn_dm_device_types(self) -> list[DeviceType]:
        return [DeviceType(name="odd", summary="odd", config=self.config, create=lambda config, context: None)]


def offer(config: type) -> DeviceType | None:
    return make_plugin_manager(builtins={}, entry_points=False, extra=[Kinds(config)]).device_type("odd")


def test_kind_with_an_option_that_can_not_be_read_is_refused_when_it_is_offered() -> None:
    with pytest.raises(PluginError) as error:
        offer(Unreadable)
    assert "odd: option 'table': dict[str, int] can't be read from a command line" in str(error.value)


def test_option_with_a_converter_of_its_own_may_have_any_type() -> None:
    assert getattr(offer(Converted), "config", None) is Converted


@attrs.frozen(kw_only=True)
class Misspelt:
    path: "Path.nothing" = option(default=None, help="a type that is not there")


def test_annotation_that_can_not_be_looked_at_names_the_plugin() -> None:
    with pytest.raises(PluginError, match=r"odd: .*nothing"):
        offer(Misspelt)
