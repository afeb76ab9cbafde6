"""Which options are the driver's and which the device's, on a command line and in TOML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm import BlockDriver, BlockDriverType, DriverContext, hookimpl, option
from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.testing import SimMachine


@attrs.frozen(kw_only=True)
class Options:
    """Those of a driver that notes them."""

    path: str = option(default="", help="A name that disks without a driver have, too.")
    word: tuple[str, ...] = option(default=(), help="Some.")
    two_parts: int = option(default=0, help="A number.")


class Noting(BlockDriver):
    """A driver that nothing is read from."""

    size = 512

    def __init__(self, options: Options, context: DriverContext) -> None:
        self.options = options
        self.context = context


@attrs.frozen
class Plugin:
    """Offers it as ``noting``, and one whose option a disk has itself."""

    @hookimpl
    def acrn_dm_block_driver_types(self) -> list[BlockDriverType]:
        clash = attrs.make_class("Clash", {"mq": option(default=1, help="")}, frozen=True)
        clash.__annotations__ = {"mq": int}
        return [
            BlockDriverType(name="noting", summary="", config=Options, create=Noting),
            BlockDriverType(name="clash", summary="", config=clash, create=Noting),
        ]


def made(options: str | Mapping[str, object]) -> tuple[Any, Noting]:
    """The device, and the driver behind it."""
    with SimMachine(plugins=[Plugin()]) as machine:
        device = machine.add("virtio-blk", options, slot=3).device  # type: ignore[attr-defined]
        driver = device.context.driver.driver
        assert isinstance(driver, Noting)
        return device, driver


TEXT = "mq=1,driver=noting,path=/a,,b,ro,word=x,word=y,two-parts=0x10,werror=stop,writeback"
TABLE = {
    "driver": "noting",
    "path": "/a,b",
    "ro": True,
    "word": ["x", "y"],
    "two-parts": 16,
    "mq": 1,
    "werror": "stop",
    "cache": "writeback",
}


@pytest.mark.parametrize("options", [TEXT, TABLE], ids=["text", "table"])
def test_options_go_to_whose_they_are(options: Any) -> None:
    device, driver = made(options)
    assert driver.options == Options(path="/a,b", word=("x", "y"), two_parts=16)
    config = device.config
    assert (config.driver, config.path, config.ro, config.werror, config.cache) == (
        *("noting", None, True, "stop", "writeback"),
    )


def test_driver_knows_its_place_and_whether_it_will_be_written() -> None:
    _, driver = made("driver=noting,ro")
    assert (driver.context.device, driver.context.read_only) == ("virtio-blk-3:0", True)
    assert made("driver=noting")[1].context.read_only is False


def test_serial_number_follows_the_whole_text() -> None:
    assert made("driver=noting,path=a")[0].serial != made("driver=noting,path=b")[0].serial


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("driver=nothing", "no block driver 'nothing'; did you mean 'noting'"),
        ("driver=noting,nocache", "driver noting: unknown option 'nocache'; .*known: path, word"),
        ("driver=noting,/disk.img", "unknown option '/disk.img'"),
        ("disk.img,driver=noting", "unknown option 'disk.img'"),
        ("driver=noting,mq=0", "mq 0: expected 1"),
        ("driver=noting,two_parts=x", "driver noting two_parts.*whole number"),
        ("driver=noting,driver=noting", "'driver' is given twice"),
        ("driver=", "expected the name of a driver"),
        ({"driver": 5}, "expected the name of a driver"),
        ({"driver": "noting", "nocache": True}, "unknown option 'nocache'"),
    ],
)
def test_wrong_options_are_told(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(options)


def test_driver_whose_option_the_device_has_is_refused() -> None:
    with pytest.raises(PluginError, match="driver clash: its option 'mq' can't be given"):
        made("driver=clash")


def test_path_that_looks_like_an_option_is_still_a_path(tmp_path: Path) -> None:
    (tmp_path / "a=b").write_bytes(bytes(512))
    with SimMachine() as machine:
        device = machine.add("virtio-blk", str(tmp_path / "a=b"), slot=3).device  # type: ignore[attr-defined]
        assert device.config.path == tmp_path / "a=b"
