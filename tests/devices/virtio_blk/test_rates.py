"""The options that limit a disk: what is read, and what is refused."""

from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.rates import RateOptions, read_rates


def test_limits_stand_behind_the_path() -> None:
    config = BlkConfig.from_string("/img,iops_rd=100,iops_rd_max=2000,iops_rd_max_length=30,bps=10M,iops_size=4k")
    assert (config.path, config.rate("iops_rd"), config.rate("bps")) == (
        Path("/img"),
        (100, 2000, 30),
        (10 << 20, 0, 1),
    )
    assert config.iops_size == 4096


def test_order_is_that_of_the_buckets() -> None:
    options = read_rates("iops=1,bps_rd=4,bps_wr=5", "disk")
    assert options.rates == ((1, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1), (4, 0, 1), (5, 0, 1))


def test_no_words_are_no_limits() -> None:
    assert read_rates("", "disk") == RateOptions()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("iops=1,iops_rd=2", "iops and iops_rd exclude each other"),
        ("bps=5,bps_max=9,bps_wr=1", "bps and bps_wr exclude each other"),
        ("iops_rd=1,iops_rd_max=2,iops=0,iops_max=3", "iops_max needs iops, the limit"),
        ("iops_max=5", "iops_max needs iops"),
        ("iops=10,iops_max=5", "iops_max 5 is lower than iops 10"),
        ("bps_wr=10,bps_wr_max_length=5", "bps_wr_max_length needs bps_wr_max"),
        ("bps=1,bps_max=2,bps_max_length=0", "bps_max_length 0"),
        ("bps=1,bps_max=1T,bps_max_length=1000000", "bps_max_length 1000000"),
        ("iops=-1", "iops -1"),
        ("iops_size=4k", "iops_size needs"),
        ("iops=many", "iops"),
        ("path=/x,iops=1", "unknown option 'path'"),
    ],
)
def test_what_excludes_one_another_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_rates(text, "disk")


def test_disk_in_another_process_has_its_limits_there() -> None:
    with pytest.raises(ValueError, match="iops and vhost-user exclude each other"):
        BlkConfig(vhost_user=Path("/s"), iops=5)
