"""Rules of the cache: its mode, and what a completed write is worth (virtio 5.2.5, 5.2.6)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.blk import disk as blk
from acrn_dm.testing.conformance.kinds.blk.disk import FLUSH, FLUSH_OUT, OK, WRITEBACK_AT, Disk, disk, pattern
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import ACKNOWLEDGE, DRIVER, DRIVER_OK

BLK = ("blk",)


def _writeback(d: Disk) -> int:
    return d.driver.read_config(WRITEBACK_AT, 1)[0]


def _set(d: Disk, writeback: int) -> None:
    d.driver.registers.write_config(WRITEBACK_AT, 1, writeback)


@rule("blk.wce.init0", kinds=BLK, needs=("CONFIG_WCE",))
def cache_mode_begins_as_write_through_without_flush(bench: Bench) -> None:
    d = disk(bench, want=blk.CONFIG_WCE, without=blk.FLUSH_F)
    assert _writeback(d) == 0, f"writeback is {_writeback(d)} for a driver that can't flush"


@rule("d.blk.wce.rw", kinds=BLK, over=("transport",), needs=("CONFIG_WCE",))
def cache_mode_is_written_and_read(bench: Bench) -> None:
    d = disk(bench, want=blk.CONFIG_WCE)
    for mode in (1, 0, 1, 0):
        _set(d, mode)
        assert _writeback(d) == mode, f"writeback reads {_writeback(d)} after {mode} was written"


@rule("blk.legacy.wce_status", kinds=BLK, transport="legacy", needs=("CONFIG_WCE",))
def cache_mode_does_not_follow_the_status(bench: Bench) -> None:
    for mode in (1, 0):
        d = Disk(bench, bench.driver())
        d.driver.reset()
        d.driver.status = ACKNOWLEDGE | DRIVER
        d.driver.registers.accept(bench.offered)
        _set(d, mode)
        for status in (ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | DRIVER_OK):
            d.driver.status = status
            assert _writeback(d) == mode, f"writeback changes when the status becomes {status:#x}"


@rule("blk.legacy.wce_features", kinds=BLK, transport="legacy", needs=("CONFIG_WCE",))
def cache_mode_does_not_follow_the_features(bench: Bench) -> None:
    for mode in (1, 0):
        d = Disk(bench, bench.driver())
        d.driver.reset()
        d.driver.status = ACKNOWLEDGE | DRIVER
        _set(d, mode)
        for features in (bench.offered, 0, bench.offered & ~blk.FLUSH_F, bench.offered & ~blk.CONFIG_WCE):
            d.driver.registers.accept(features)
            assert _writeback(d) == mode, f"writeback changes when the features become {features:#x}"


@rule("blk.legacy.flush_out", kinds=BLK, transport="legacy", needs=("FLUSH",))
def old_flush_means_flush(bench: Bench) -> None:
    d = disk(bench, want=blk.FLUSH_F)
    at = d.free(1)
    d.write(at, pattern(1))
    assert d.status(FLUSH_OUT) == OK, "FLUSH_OUT is not done"
    assert not d.medium.volatile(), "a write is not on the medium after FLUSH_OUT"


@rule("blk.legacy.barrier_before", kinds=BLK, transport="legacy", needs=("BARRIER",))
def barrier_comes_after_what_was_before(bench: Bench) -> None:
    d = disk(bench, want=blk.BARRIER)
    at, queue = d.free(16), d.driver.queue(0)
    for n in range(15):
        queue.send([blk.header(blk.OUT, at + n), pattern(n)], [1])
    last = queue.send([blk.header(blk.OUT | 1 << 31, at + 15), pattern(15)], [1])
    queue.kick()
    done = [c.token for c in bench.collect(queue, 16)]
    assert done[-1:] == [last], "a barrier completes before requests that were made before it"


@rule("blk.stable.before_complete.noflush", kinds=BLK, needs=("FLUSH",))
def write_is_stable_for_who_can_not_flush(bench: Bench) -> None:
    d = disk(bench, without=blk.FLUSH_F | blk.CONFIG_WCE)
    at = d.free(8)
    for seed in (1, 2):
        d.write(at, pattern(seed, 8))
        assert not d.medium.volatile(), "a completed write can be lost, and the driver can't flush"


@rule("blk.stable.before_complete.wt", kinds=BLK, over=("transport",), needs=("CONFIG_WCE",))
def write_is_stable_in_write_through_mode(bench: Bench) -> None:
    d = disk(bench, want=blk.CONFIG_WCE)
    at = d.free(8)
    _set(d, 0)
    for seed in (1, 2):
        d.write(at, pattern(seed, 8))
        assert not d.medium.volatile(), "a completed write can be lost although writeback is 0"


@rule("blk.stable.flush", kinds=BLK, over=("transport",), needs=("FLUSH",))
def flush_makes_writes_stable(bench: Bench) -> None:
    d = disk(bench, want=blk.FLUSH_F)
    at = d.free(8)
    if d.driver.features & blk.CONFIG_WCE:
        _set(d, 1)
    d.write(at, pattern(1, 8))
    assert d.status(FLUSH) == OK, "FLUSH is not done"
    assert not d.medium.volatile(), "a write that completed before a flush can be lost after it"
