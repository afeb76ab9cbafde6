"""What docs/how-to/disks.md shows works: every option and command that it names."""

import re
from pathlib import Path

import attrs
import pytest

from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.rates import RateOptions, read_rates
from acrn_dm.management import command
from acrn_dm.management.controls import parse_limits

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "disks.md").read_text()
DISKS = re.findall(r"virtio-blk,([^ `]+)", PAGE)
LIMITS = re.findall(r"`((?:iops|bps)=\d[^`]*)`", PAGE)
COMMANDS = re.findall(r'(\{"command": "blkthrottle".*?\})`', PAGE)


@pytest.mark.parametrize("text", DISKS)
def test_disk_of_the_page_is_one(text: str) -> None:
    assert BlkConfig.from_string(text).rates != RateOptions().rates


@pytest.mark.parametrize("text", LIMITS)
def test_limits_of_the_page_are_some(text: str) -> None:
    assert read_rates(text, "page") != RateOptions()


@pytest.mark.parametrize("text", COMMANDS)
def test_command_of_the_page_is_understood(text: str) -> None:
    wanted = command.parse(text.encode())
    place, limits = parse_limits(wanted.arguments)
    assert (wanted.name, str(place), read_rates(limits, "page").iops) == ("blkthrottle", "0:3.0", 1000)


def test_page_shows_something_of_each() -> None:
    assert min(len(DISKS), len(LIMITS), len(COMMANDS)) > 0


def test_every_option_of_the_page_is_one_of_the_disk() -> None:
    """The first column of its tables, and all that is short there."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert names <= {field.name for field in attrs.fields(BlkConfig)}
    assert {"iops", "bps_wr", "secure_erase"} <= names
