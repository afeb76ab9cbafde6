"""The option grammar of virtio-blk."""

from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.options import describe, from_mapping
from acrn_dm.devices.virtio_blk.config import BlkConfig, Discard, IoThreads, Range, SectorSize


def test_path_alone_is_write_through_with_one_queue() -> None:
    assert BlkConfig.from_string("/img") == BlkConfig(path=Path("/img"), cache="writethru", mq=1)


def test_options_before_the_path_come_in_any_order() -> None:
    expected = BlkConfig(path=Path("/img"), mq=3, iothread=IoThreads(count=1))
    assert BlkConfig.from_string("iothread,mq=3,/img") == BlkConfig.from_string("mq=3,iothread,/img") == expected


def test_all_options_behind_the_path_are_read() -> None:
    text = "/img,writeback,ro,nocache,no_bst_block,discard=8:4:1,sectorsize=512/4096,range=10/20,aio=io_uring"
    assert BlkConfig.from_string(text) == BlkConfig(
        path=Path("/img"),
        cache="writeback",
        ro=True,
        nocache=True,
        no_bst_block=True,
        discard=Discard(max_sectors=8, max_segments=4, alignment=1),
        sectorsize=SectorSize(logical=512, physical=4096),
        range=Range(start=10, size=20),
        aio="io_uring",
    )


def test_cpus_of_iothreads_are_split_by_slash_and_colon() -> None:
    config = BlkConfig.from_string("iothread=3@0:1:2/0/*,/img")
    assert config.iothread == IoThreads(count=3, cpus=((0, 1, 2), (0,), ()))


def test_nodisk_needs_no_path() -> None:
    assert BlkConfig.from_string("nodisk") == BlkConfig(nodisk=True)


def test_options_of_a_slot_without_a_disk_are_read_like_all_others() -> None:
    expected = BlkConfig(nodisk=True, mq=2, ro=True, sectorsize=SectorSize(logical=4096, physical=4096))
    assert BlkConfig.from_string("mq=2,nodisk,ro,sectorsize=4096") == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodisk,r0=1,foo,bar=baz", "unknown option 'r0'"),
        ("nodisk,sectorsize=300", "300"),
        ("nodisk,/img", "/img"),
        ("/img,nodisk", "nodisk"),
    ],
)
def test_wrong_option_of_a_slot_without_a_disk_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        BlkConfig.from_string(text)


def test_option_behind_the_path_that_stands_before_it_is_told_its_place() -> None:
    with pytest.raises(ConfigError, match="'mq' stands before the path: virtio-blk,mq=2,PATH"):
        BlkConfig.from_string("/img,ro,mq=2")


def test_table_with_nodisk_and_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="nodisk and the path of an image exclude each other"):
        from_mapping(BlkConfig, {"nodisk": True, "path": "/img"}, "virtio-blk")


def test_path_with_nodisk_in_its_name_is_a_path() -> None:
    assert BlkConfig.from_string("/img/nodisk.img").path == Path("/img/nodisk.img")


def test_last_cache_mode_counts() -> None:
    assert BlkConfig.from_string("/img,writeback,writethru").cache == "writethru"


def test_single_sector_size_is_both() -> None:
    assert BlkConfig.from_string("/img,sectorsize=4096").sectorsize == SectorSize(logical=4096, physical=4096)


def test_toml_table_gives_the_same_as_text() -> None:
    table = {"path": "/img", "mq": 2, "iothread": 1, "cache": "writeback", "discard": True, "range": "1/2"}
    assert from_mapping(BlkConfig, table, "virtio-blk") == BlkConfig.from_string(
        "iothread=1,mq=2,/img,writeback,discard,range=1/2"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "path"),
        ("mq=2", "path"),
        (",ro", "path"),
        ("/img,bogus", "bogus"),
        ("/img,mq=2", "mq"),
        ("/img,sectorsize=300", "300"),
        ("/img,sectorsize=4096/512", "4096/512"),
        (f"/img,sectorsize={'9' * 5000}", "at most 20 digits"),
        ("/img,sectorsize", "sectorsize"),
        ("/img,range=5", "range"),
        ("/img,range=0/0", "range"),
        ("/img,range=-1/5", "range"),
        ("/img,discard=1:257:0", "MAXSEG"),
        ("/img,discard=1:2", "MAXSECT:MAXSEG:ALIGN"),
        ("/img,aio=posix", "io_uring"),
        ("iothread=0,/img", "iothread"),
        ("iothread=41,/img", "40"),
        ("iothread=1@0/1,/img", "iothread"),
        ("iothread=1@x,/img", "CPU"),
        ("mq=0,/img", "mq"),
        ("mq=many,/img", "many"),
    ],
)
def test_wrong_option_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        BlkConfig.from_string(text)


def test_every_option_has_a_help_text() -> None:
    assert all(line.text for line in describe(BlkConfig))
