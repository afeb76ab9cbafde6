"""Rules of a disk's offer and configuration space (virtio 5.2.3 to 5.2.5)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.blk import disk as blk
from acrn_dm.testing.conformance.kinds.blk.disk import NUM_QUEUES_AT, SECTOR, disk, pattern
from acrn_dm.testing.conformance.rule import NotApplicable, rule

BLK = ("blk",)
MODEL_AT, ZONE_SECTORS_AT, ZONE_PADDING = 92, 72, slice(93, 96)
ZONED_END = 96
NOT_ZONED, HOST_MANAGED, HOST_AWARE = 0, 1, 2


def _u32(config: bytes, at: int) -> int:
    return int.from_bytes(config[at : at + 4], "little")


@rule("blk.flush.offer", kinds=BLK)
def flush_is_offered(bench: Bench) -> None:
    assert bench.offered & blk.FLUSH_F, "FLUSH is not offered"


@rule("blk.flush.offer_with_wce", kinds=BLK, needs=("CONFIG_WCE",))
def flush_is_offered_with_the_cache_mode(bench: Bench) -> None:
    assert bench.offered & blk.FLUSH_F, "CONFIG_WCE is offered without FLUSH"


@rule("blk.cfg.padding", kinds=BLK, over=("transport",))
def padding_is_zero(bench: Bench) -> None:
    config = bench.driver().read_config(0, min(bench.config_size, 60))
    assert not any(config[33:34]), "unused0 is not 0"
    assert not any(config[57:60]), "unused1 is not 0"


@rule("blk.zoned.not_zoned", kinds=BLK, needs=("ZONED",))
def disk_without_zones_does_not_offer_them(bench: Bench) -> None:
    assert bench.config[MODEL_AT] != NOT_ZONED, "ZONED is offered by a disk without zones"


@rule("blk.zoned.legacy", kinds=BLK, transport="legacy")
def legacy_disk_does_not_offer_zones(bench: Bench) -> None:
    assert not bench.offered & blk.ZONED, "ZONED is offered to a legacy driver"


@rule("blk.zoned.unaccepted_ha", kinds=BLK, needs=("ZONED",))
def zones_are_not_shown_to_who_does_not_want_them(bench: Bench) -> None:
    if bench.config[MODEL_AT] == HOST_MANAGED:
        raise NotApplicable("the disk is host-managed")
    d = disk(bench, without=blk.ZONED)
    assert not any(d.driver.read_config(ZONE_SECTORS_AT, ZONED_END - ZONE_SECTORS_AT)), "zone fields are not 0"


@rule("blk.zoned.unaccepted_hm", kinds=BLK, needs=("ZONED",))
def host_managed_disk_refuses_who_does_not_want_zones(bench: Bench) -> None:
    if bench.config[MODEL_AT] != HOST_MANAGED:
        raise NotApplicable("the disk is not host-managed")
    assert not bench.driver().negotiate(bench.offered & ~blk.ZONED), "a driver without ZONED is accepted"


@rule("blk.zoned.model.none", "blk.zoned.model.hm", "blk.zoned.model.ha", kinds=BLK, needs=("ZONED",))
def model_is_one_that_there_is(bench: Bench) -> None:
    assert bench.config[MODEL_AT] in (NOT_ZONED, HOST_MANAGED, HOST_AWARE), f"model is {bench.config[MODEL_AT]}"


@rule("blk.zoned.max_append_limit", kinds=BLK, needs=("ZONED", "SEG_MAX", "SIZE_MAX"))
def append_fits_into_a_request(bench: Bench) -> None:
    config = bench.config
    limit = _u32(config, 12) * _u32(config, 8)
    assert _u32(config, 84) * SECTOR <= limit, "max_append_sectors is more than seg_max times size_max"


@rule("blk.zoned.padding", kinds=BLK, needs=("ZONED",))
def zone_padding_is_zero(bench: Bench) -> None:
    assert not any(bench.config[ZONE_PADDING]), "unused2 is not 0"


@rule("blk.zoned.erase_align", kinds=BLK, needs=("ZONED", "SECURE_ERASE"))
def secure_erase_is_aligned_to_zones(bench: Bench) -> None:
    config = bench.config
    assert not _u32(config, 68) % (_u32(config, ZONE_SECTORS_AT) or 1), "secure_erase_sector_alignment cuts zones"


@rule("d.blk.capacity", kinds=BLK, over=("transport",))
def capacity_is_the_mediums(bench: Bench) -> None:
    d = disk(bench)
    assert d.capacity == d.medium.size // SECTOR, (
        f"capacity is {d.capacity} sectors, the medium has {d.medium.size} bytes"
    )


@rule("blk.capacity.notify", kinds=BLK)
def another_capacity_is_told(bench: Bench) -> None:
    d = disk(bench)
    before, generation = d.driver.config_interrupts, d.driver.registers.read("config_generation")
    d.medium.resize(d.medium.size + 8 * SECTOR)
    bench.machine.settle()
    assert d.capacity == d.medium.size // SECTOR, f"capacity is {d.capacity} after the medium was resized"
    assert d.driver.config_interrupts > before, "no configuration change notification"
    assert d.driver.registers.read("config_generation") != generation, "the generation did not change"


@rule("d.blk.num_queues", kinds=BLK)
def every_queue_serves_requests(bench: Bench) -> None:
    d = disk(bench)
    mq = bool(bench.offered & blk.MQ)
    count = int.from_bytes(d.driver.read_config(NUM_QUEUES_AT, 2), "little") if mq else 1
    assert count >= 1, f"num_queues is {count}"
    there = d.driver.registers.read("num_queues")
    assert there >= count, f"there are {there} queues, num_queues is {count}"
    sector = d.some()
    first = d.read(sector)
    for queue in range(count):
        assert d.read(sector, queue=queue) == first, f"queue {queue} reads something else"


@rule("d.blk.sector512", kinds=BLK)
def sectors_have_512_bytes(bench: Bench) -> None:
    d = disk(bench)
    unit = int.from_bytes(d.driver.read_config(20, 4), "little") if bench.offered & blk.BLK_SIZE else SECTOR
    step = max(unit, SECTOR) // SECTOR
    if d.capacity < 3 * step:
        raise NotApplicable("the disk is too small")
    d.medium.write(0, pattern(7, 3 * step))
    for block in range(3):
        assert d.read(block * step, step) == pattern(7, 3 * step)[block * step * SECTOR :][: step * SECTOR]
