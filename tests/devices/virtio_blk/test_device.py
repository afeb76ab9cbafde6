"""virtio-blk as its driver sees it. Test names hold the ids of the conformance table (dots as underscores)."""

import errno
import hashlib
import logging
import os
import struct
import threading
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events import io_threads
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.devices.virtio_blk import device as device_module
from acrn_dm.devices.virtio_blk.device import serial_number
from acrn_dm.testing import SimMachine
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    F_CONFIG_WCE,
    F_DISCARD,
    F_FLUSH,
    F_MQ,
    F_RO,
    F_WRITE_ZEROES,
    FLUSH,
    FLUSH_OUT,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    UNSUPP,
    WRITE_ZEROES,
    WRITEBACK_AT,
    Disk,
    Failing,
    disk,
    header,
    image,
    segment,
    slow_medium,
)
from tests.devices.virtio_blk.stuck import stuck

pytestmark = pytest.mark.both_formats


class Recorder:
    """Notes in which order an image is used."""

    def __init__(self, disk_: Disk) -> None:
        self.calls: list[str] = []
        self._image = disk_.device.image
        disk_.device.image = self  # type: ignore[assignment]

    def read_cached(self, views: object, offset: int) -> bool:
        return False

    def write(self, views: object, offset: int, *, durable: bool) -> None:
        self.calls.append("write, durable" if durable else "write")

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, durable: bool) -> None:
        self.calls.append(f"zero{', unmap' if unmap else ''}{', durable' if durable else ''}")

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        assert self._image is not None
        self._image.close()


def test_read_and_write_reach_the_image(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        assert d.read(7)[:8] == struct.pack("<Q", 7)
        assert d.write(9, b"w" * 1024) == OK
        assert d.read(8, 4)[512:1536] == b"w" * 1024
    assert path.read_bytes()[9 * 512 : 11 * 512] == b"w" * 1024


def test_legacy_driver_reads_and_writes(tmp_path: Path) -> None:
    with disk(str(image(tmp_path)), legacy=True) as d:
        assert d.write(9, b"w" * 512) == OK
        assert d.read(9) == b"w" * 512


def test_used_length_of_a_read_is_data_and_status(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        assert d.request(IN, 0, room=1024).written == 1025
        assert d.request(OUT, 0, bytes(512)).written == 1


def test_read_that_is_not_cached_is_done_by_a_thread(tmp_path: Path) -> None:
    path = image(tmp_path, 1024)
    with disk(str(path)) as d, slow_medium(d) as gate:
        gate.set()
        assert d.read(3)[:8] == struct.pack("<Q", 3)
        assert d.read(0, 1024) == path.read_bytes()


def test_threads_are_started_as_requests_pile_up_and_at_most_eight(tmp_path: Path) -> None:
    def threads() -> int:
        return sum(t.name.startswith("blk-3:0-0-") for t in threading.enumerate())

    with disk(str(image(tmp_path))) as d:
        assert threads() == 0
        d.write(0, bytes(512))
        assert threads() == 1
        with slow_medium(d) as gate:
            for i in range(20):
                d.queue.send([header(OUT, i), bytes(512)], [1])
            d.queue.kick()
            d.machine.io_loops["io"].step()
            assert threads() == 8
            gate.set()
            d.machine.settle()
        assert len(d.queue.completed()) == 20
        d.driver.reset()
        assert threads() == 0


def test_configuration_describes_the_image(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},discard=100:3:8,sectorsize=512/4096") as d:
        config = d.driver.read_config(0, 60)
        capacity, size_max, seg_max, _, _, _, block = struct.unpack_from("<QIIHBBI", config)
        assert (capacity, size_max, seg_max, block) == (2048, 0, 254, 512)
        assert config[24] == 3  # 8 logical blocks are a physical one
        assert struct.unpack_from("<III", config, 36) == (100, 3, 8)
        assert struct.unpack_from("<IIB", config, 48) == (2048, 1, 1)


def test_blk_cfg_padding_is_zero(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        config = d.driver.read_config(0, 60)
        assert config[33] == 0
        assert config[57:60] == bytes(3)


def test_sector_size_larger_than_512_keeps_capacity_in_512(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},sectorsize=4096") as d:
        assert d.driver.read_config(0, 8) == struct.pack("<Q", 2048)
        assert d.driver.read_config(20, 4) == struct.pack("<I", 4096)


def test_default_limits_of_discard_are_the_whole_disk_in_one_segment(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},discard") as d:
        assert struct.unpack("<III", d.driver.read_config(36, 12)) == (2048, 1, 0)


@pytest.mark.parametrize("text", ["", ",writeback", ",ro"])
def test_blk_flush_offer_and_offer_with_wce(tmp_path: Path, text: str) -> None:
    with disk(str(image(tmp_path)) + text) as d:
        assert d.driver.registers.offered() & (F_FLUSH | F_CONFIG_WCE) == F_FLUSH | F_CONFIG_WCE


def test_blk_zoned_not_zoned_and_lifetime_no_offer(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        assert d.driver.registers.offered() & (1 << 15 | 1 << 16 | 1 << 17) == 0


def test_discard_is_offered_only_on_request(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        assert not d.driver.registers.offered() & F_DISCARD
        assert d.request(DISCARD, 0, segment(0, 1)).data[-1] == UNSUPP


def test_discard_that_was_not_accepted_is_unsupported(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},discard", features=F_FLUSH) as d:
        assert d.request(DISCARD, 0, segment(0, 1)).data[-1] == UNSUPP
        assert d.request(WRITE_ZEROES, 0, segment(0, 1)).data[-1] == UNSUPP


@pytest.mark.parametrize("flags", [0, 1])
def test_blk_wz_zeroes_only_the_range(tmp_path: Path, flags: int) -> None:
    path = image(tmp_path)
    before = path.read_bytes()
    with disk(str(path)) as d:
        assert d.request(WRITE_ZEROES, 0, segment(8, 16, flags)).data[-1] == OK
        assert d.read(7, 18) == before[7 * 512 : 8 * 512] + bytes(16 * 512) + before[24 * 512 : 25 * 512]
    assert path.stat().st_size == len(before)


def test_discard_gives_space_back(tmp_path: Path) -> None:
    path = image(tmp_path)
    blocks = path.stat().st_blocks
    with disk(f"{path},discard") as d:
        assert d.request(DISCARD, 0, segment(0, 1024)).data[-1] == OK
    assert path.stat().st_size == 2048 * 512
    assert path.stat().st_blocks < blocks


@pytest.mark.parametrize("kind", [OUT, DISCARD, WRITE_ZEROES])
@pytest.mark.parametrize("features", [None, F_FLUSH | F_DISCARD | F_WRITE_ZEROES])
def test_blk_ro_ioerr_and_no_write(tmp_path: Path, kind: int, features: int | None) -> None:
    path = image(tmp_path)
    before = path.read_bytes()
    with disk(f"{path},ro,discard", start=False) as d:
        offered = d.driver.registers.offered()
        assert offered & (F_RO | F_DISCARD | F_WRITE_ZEROES) == F_RO
        d.driver.start(offered if features is None else features & offered)
        data = bytes(512) if kind == OUT else segment(0, 1)
        assert d.request(kind, 0, data).data[-1] == IOERR
        assert d.request(FLUSH).data[-1] == OK
    assert path.read_bytes() == before


def test_serial_number_comes_from_the_option_text(tmp_path: Path) -> None:
    text = f"{image(tmp_path)},writeback"
    d5 = hashlib.md5(text.encode()).digest()
    expected = b"ACRN--%02X%02X-%02X%02X-%02X%02X" % tuple(d5[:6])
    with disk(text) as d:
        done = d.request(GET_ID, room=20)
        assert (done.written, done.data) == (21, expected + bytes([OK]))


def test_serial_number_uses_256_bytes_of_the_text() -> None:
    assert serial_number("x" * 256 + "a") == serial_number("x" * 256 + "b")
    assert len(serial_number("")) == 20


@pytest.mark.parametrize(("room", "written"), [(1, 2), (19, 20), (21, 20), (64, 20)])
def test_get_id_fits_itself_to_the_buffer(tmp_path: Path, room: int, written: int) -> None:
    with disk(str(image(tmp_path))) as d:
        done = d.request(GET_ID, room=room)
        assert done.written == written
        assert done.data[: min(room, 20)] == d.device.serial[:room]
        assert done.data[-1] == OK


def test_blk_legacy_flush_out_is_flush(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        used = Recorder(d)
        assert d.request(FLUSH_OUT).data[-1] == OK
        assert used.calls == ["flush"]


@pytest.mark.parametrize(
    ("text", "features", "expected"),
    [
        ("", None, "write, durable"),
        ("", F_FLUSH, "write, durable"),
        (",writeback", None, "write"),
        (",writeback", F_FLUSH, "write"),
        (",writeback", 0, "write, durable"),
        (",writeback", F_CONFIG_WCE, "write, durable"),
    ],
)
def test_blk_stable_before_complete_follows_negotiation(
    tmp_path: Path, text: str, features: int | None, expected: str
) -> None:
    with disk(str(image(tmp_path)) + text, features=features) as d:
        used = Recorder(d)
        d.write(0, bytes(512))
        assert used.calls == [expected]


def test_blk_stable_before_complete_wt_after_the_driver_chose_it(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        used = Recorder(d)
        d.driver.registers.write_config(WRITEBACK_AT, 1, 0)
        d.write(0, bytes(512))
        d.driver.registers.write_config(WRITEBACK_AT, 1, 1)
        d.write(0, bytes(512))
        assert used.calls == ["write, durable", "write"]


def test_blk_stable_flush_comes_after_completed_writes(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        used = Recorder(d)
        d.write(0, bytes(512))
        d.request(WRITE_ZEROES, 0, segment(0, 1))
        d.request(FLUSH)
        assert used.calls == ["write", "zero", "flush"]


def test_blk_wce_init0_without_flush(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback", features=F_CONFIG_WCE) as d:
        assert d.driver.read_config(WRITEBACK_AT, 1) == b"\0"


def test_reset_brings_the_cache_mode_of_the_option_back(tmp_path: Path) -> None:
    with disk(f"{image(tmp_path)},writeback") as d:
        d.driver.registers.write_config(WRITEBACK_AT, 1, 0)
        d.driver.start()
        assert d.driver.read_config(WRITEBACK_AT, 1) == b"\1"


@pytest.mark.parametrize("at", [0, 8, 20, 31, 33, 36])
def test_other_configuration_is_read_only(tmp_path: Path, at: int) -> None:
    with disk(str(image(tmp_path))) as d:
        before = d.driver.read_config(0, 60)
        d.driver.registers.write_config(at, 1, 0x5A)
        assert d.driver.read_config(0, 60) == before


@pytest.mark.parametrize(("err", "status"), [(errno.EIO, IOERR), (errno.ENOSPC, IOERR), (errno.EOPNOTSUPP, UNSUPP)])
@pytest.mark.parametrize("kind", [IN, OUT, FLUSH, DISCARD, WRITE_ZEROES])
def test_host_error_reaches_the_guest_as_a_status(tmp_path: Path, kind: int, err: int, status: int) -> None:
    with disk(f"{image(tmp_path)},discard") as d:
        assert d.device.image is not None
        d.device.image = Failing(d.device.image, err)  # type: ignore[assignment]
        data = {OUT: bytes(512), DISCARD: segment(0, 1), WRITE_ZEROES: segment(0, 1)}.get(kind, b"")
        assert d.request(kind, 0, data, 512 if kind == IN else 0).data[-1] == status
        assert d.device.errors == 1
        assert d.machine.failures == []


def test_host_errors_are_logged_at_a_bounded_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(str(image(tmp_path))) as d, caplog.at_level(logging.ERROR):
        assert d.device.image is not None
        d.device.image = Failing(d.device.image, errno.EIO)  # type: ignore[assignment]
        for _ in range(15):
            d.write(0, bytes(512))
        assert len(caplog.records) == 10


def test_image_that_shrank_gives_read_errors(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        os.truncate(path, 512)
        assert d.request(IN, 0, room=1024).data[-1] == IOERR


def test_row_59_reset_ends_when_the_host_is_done_and_drops_completions(tmp_path: Path) -> None:
    path = image(tmp_path)
    with disk(str(path)) as d:
        with stuck("pwritev") as host:
            d.queue.send([header(OUT, 5), b"r" * 512], [1])
            d.queue.kick()
            d.machine.io_loops["io"].step()
            assert host.entered.wait(30)
            d.driver.status = 0
            assert d.driver.status != 0
            host.release.set()
            d.driver.reset()
        d.machine.settle()
        assert sum(d.machine.interrupts.values()) == 0
        d.driver.start()
        assert d.write(5, b"s" * 512) == 0
        assert d.read(5) == b"s" * 512


def test_row_83_slow_disk_does_not_hold_up_its_loop(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d, slow_medium(d):
        d.queue.send([header(OUT, 5), b"r" * 512], [1])
        d.queue.send([header(GET_ID)], [20, 1])
        d.queue.kick()
        d.machine.io_loops["io"].step()
        assert [c.written for c in d.queue.completed()] == [21], "the quick one is answered while the slow one waits"


def test_guest_that_asks_a_lot_leaves_the_loop_to_others_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "BATCH", 4)
    with disk(str(image(tmp_path))) as d:
        for _ in range(120):
            d.queue.send([header(GET_ID)], [21])
        d.queue.kick()
        d.machine.io_loops["io"].step()
        assert len(d.queue.completed()) == 2 * 4 * device_module.BATCHES
        d.machine.settle()
        assert len(d.queue.completed()) == 120 - 2 * 4 * device_module.BATCHES


def test_queues_are_clipped_to_the_vcpus(tmp_path: Path) -> None:
    with disk(f"mq=4,{image(tmp_path)}", vcpus=2) as d:
        assert d.driver.registers.offered() & F_MQ
        assert d.driver.all_queues() == [0, 1]
        assert d.driver.read_config(34, 2) == struct.pack("<H", 2)
        assert d.driver.queue(1).transfer([header(IN, 4)], [512, 1]).data[:8] == struct.pack("<Q", 4)


def test_single_queue_does_not_offer_mq(tmp_path: Path) -> None:
    with disk(f"mq=4,{image(tmp_path)}") as d:
        assert not d.driver.registers.offered() & F_MQ


def test_iothreads_are_loops_of_their_own(tmp_path: Path) -> None:
    with disk(f"iothread=2,mq=3,{image(tmp_path)}", vcpus=4) as d:
        assert set(d.machine.io_loops) == {"iothr-0-blk3:0", "iothr-1-blk3:0"}
        assert d.driver.queue(2).transfer([header(IN, 4)], [512, 1]).data[-1] == OK


def test_iothread_is_bound_to_its_cpus() -> None:
    loop = IoLoop("iothr-0-blk3:0")
    seen: list[set[int]] = []
    done = threading.Event()
    loop.start()
    loop.call_soon(lambda: io_threads.pin_current_thread("disk", loop, (0,)))
    loop.call_soon(lambda: (seen.append(os.sched_getaffinity(0)), done.set()))
    assert done.wait(10)
    loop.close()
    assert seen == [{0}]


def test_nodisk_is_there_and_fails_every_transfer() -> None:
    with disk("nodisk") as d:
        assert d.driver.read_config(0, 8) == bytes(8)
        assert d.request(IN, 0, room=512).data[-1] == IOERR
        assert d.request(FLUSH).data[-1] == IOERR


def check(text: str) -> list[str]:
    """What --dry-run would say."""
    with SimMachine() as machine:
        return machine.add(acrn_dm_device_types()[0], text, slot=3).check()


def test_check_names_a_missing_image_in_one_line(tmp_path: Path) -> None:
    assert check(f"{tmp_path}/none.img") == [f"virtio-blk-3:0: image {tmp_path}/none.img does not exist"]


def test_check_refuses_a_directory(tmp_path: Path) -> None:
    assert "neither a regular file nor a block device" in check(str(tmp_path))[0]


def test_check_is_content_with_an_image_and_with_nodisk(tmp_path: Path) -> None:
    assert check(str(image(tmp_path))) == check("nodisk") == []


@pytest.mark.parametrize(
    ("size", "text", "named"), [(0, "", "empty"), (513, "", "512"), (512, ",sectorsize=4096", "4096")]
)
def test_image_of_odd_size_is_refused(tmp_path: Path, size: int, text: str, named: str) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(ConfigError, match=named), disk(str(path) + text):
        pass


def test_image_that_vanished_is_an_error_at_realize(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, HostError), match=r"none\.img"), disk(f"{tmp_path}/none.img"):
        pass


def test_machine_reset_starts_over(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        d.write(3, b"k" * 512)
        d.machine.reset()
        d.driver.start()
        assert d.read(3) == b"k" * 512
