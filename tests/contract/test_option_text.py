"""acrn_dm.contract.option_text: commas in values, and names that come from other programs."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.cli.platform import ovmf
from acrn_dm.cli.values import lpc_uart, pci_slot
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.option_text import ELSEWHERE, option_meant, split_options, split_raw
from acrn_dm.contract.options import from_mapping, option, parse_options
from acrn_dm.contract.types import Bdf
from acrn_dm.devices.vhost_user.config import ForeignConfig
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_fs.config import FsConfig
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.virtio.choice import take_option


@attrs.frozen(kw_only=True)
class Options:
    path: Path = option(default=Path("/"), help="A path.")
    names: list[str] = option(default=attrs.Factory(list), help="Names.")
    ro: bool = option(default=False, help="Never write.")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", [""]),
        ("a,b", ["a", "b"]),
        ("a,,b,c", ["a,b", "c"]),
        ("a,,,b", ["a,", "b"]),
        (",,,a", [",", "a"]),
        ("a,,,,b", ["a,,b"]),
        ("a,", ["a", ""]),
        (",a", ["", "a"]),
    ],
)
def test_two_commas_are_one_of_the_value(text: str, options: list[str]) -> None:
    assert split_options(text) == options
    assert ",".join(split_raw(text)) == text


@pytest.mark.parametrize("value", ["a,b", ",", ",,", "a,", ",a", "plain", ""])
def test_what_is_quoted_comes_back(value: str) -> None:
    assert split_options(f"x={value.replace(',', ',,')},y") == [f"x={value}", "y"]


def test_common_grammar_takes_quoted_commas() -> None:
    got = parse_options(Options, "path=/a,,b,ro,names=x,,y,names=z", "dev")
    assert got == Options(path=Path("/a,b"), names=["x,y", "z"], ro=True)


def test_table_is_never_unquoted() -> None:
    assert from_mapping(Options, {"path": "/a,,b"}, "dev").path == Path("/a,,b")


def test_disk_takes_a_path_with_commas() -> None:
    config = BlkConfig.from_string("iothread,/a,,b.img,ro")
    assert (config.path, config.ro) == (Path("/a,b.img"), True)


def test_console_takes_a_path_with_commas() -> None:
    ports = ConsoleConfig.from_string("file:log=/a,,b,@pty:con").ports
    assert [(port.name, port.path) for port in ports] == [("log", Path("/a,b")), ("con", None)]


def test_console_takes_a_socket_with_commas() -> None:
    assert ConsoleConfig.from_string("vhost-user=/a,,b").vhost_user == Path("/a,b")


def test_card_takes_a_socket_with_commas() -> None:
    assert NetConfig.from_string("vhost-user=/a,,b,mq=2").vhost_user == Path("/a,b")


def test_firmware_takes_paths_with_commas() -> None:
    assert ovmf("w,code=/a,,b,vars=/c").code == Path("/a,b")


def test_serial_port_takes_a_path_with_commas() -> None:
    assert lpc_uart("com5,/dev/a,,b,0x1000,7").backend == "/dev/a,b"


@pytest.mark.parametrize(
    ("text", "boot", "rest"),
    [("b,/x", True, "/x"), ("b,,x", False, "b,,x"), ("b,,,x", False, "b,,,x"), ("b", False, "b")],
)
def test_boot_mark_is_a_word_of_its_own(text: str, boot: bool, rest: str) -> None:
    spec = pci_slot(f"3,virtio-blk,{text}")
    assert (spec.bootable, spec.text) == (boot, rest)


def test_backend_is_taken_out_and_the_rest_stays_as_it_was_written() -> None:
    spec = DeviceSpec(bdf=Bdf(slot=3), kind="x", text="/a,,backend=no,backend=vhost,ro")
    rest, name = take_option(spec, Options)
    assert (rest.text, name) == ("/a,,backend=no,ro", "vhost")


@pytest.mark.parametrize(
    ("config", "word", "ours"),
    [
        (BlkConfig, "readonly", "ro"),
        (BlkConfig, "read-only", "ro"),
        (BlkConfig, "file", "path"),
        (BlkConfig, "num-queues", "mq"),
        (BlkConfig, "logical_block_size", "sectorsize"),
        (NetConfig, "ifname", "tap"),
        (NetConfig, "macaddr", "mac"),
        (NetConfig, "queues", "mq"),
        (Options, "nmaes", "names"),
    ],
)
def test_name_that_others_have_is_answered_with_ours(config: type[Any], word: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown option '{word}'; did you mean '{ours}'"):
        from_mapping(config, {word: "x"}, "dev")


def test_name_that_others_have_is_not_suggested_where_the_device_has_no_such_option() -> None:
    assert option_meant("ifname", ["size"]) == ""


def test_every_name_of_ours_is_an_option_of_a_device() -> None:
    known = {f.name for c in (BlkConfig, NetConfig, ConsoleConfig, ForeignConfig, FsConfig) for f in attrs.fields(c)}
    ours = {name for names in ELSEWHERE.values() for name in names}
    assert ours - known == {"source", "cid", "read_only"}  # of acrn-dm-rng and acrn-dm-vsock; a usual name


def test_interface_without_its_option_is_understood() -> None:
    with pytest.raises(ConfigError, match="'tap0': did you mean 'tap=tap0'"):
        NetConfig.from_string("tap0,mq=2")


def _hexadecimal(value: str) -> int:
    try:
        return int(value, 16)
    except ValueError:
        raise ValueError("expected hexadecimal digits") from None


def _short(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if len(value) > 3:
        raise ValueError("too long")


@attrs.frozen(kw_only=True)
class Silent:
    """Options whose author says what is wrong, and not of which value."""

    mask: int = option(default="0", converter=_hexadecimal, help="A mask.")
    tag: str = option(default="", validator=_short, help="A tag.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mask=red", "-s 3,dev mask: 'red': expected hexadecimal digits"),
        ("tag=a,,b,,c", "-s 3,dev tag: 'a,b,c': too long"),
    ],
)
def test_error_shows_the_value_where_its_author_does_not(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_options(Silent, text, "-s 3,dev")
    assert str(error.value) == said
