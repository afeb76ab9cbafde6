"""What only some media can: erasing for good, telling how worn they are, writing anywhere. The block device is a file
whose sysfs is scripted, and what the kernel would do for an ioctl is recorded.
"""

import errno
import os
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_blk import medium
from acrn_dm.devices.virtio_blk.image import backend, node
from acrn_dm.devices.virtio_blk.limits import LIFETIME, SECURE_ERASE
from acrn_dm.devices.virtio_blk.medium import open_image, problem
from tests.devices.virtio_blk.blk_rig import IOERR, OK, UNSUPP, config, disk, image, segment

GET_LIFETIME, ERASE = 10, 14
ERASE_AT = 60


@attrs.define
class Emmc:
    """The scripted block device: its sysfs, what it was told to erase, and the errno that it fails with."""

    sysfs: Path
    erased: list[tuple[int, int]] = attrs.field(factory=list)
    err: int = 0

    def tell(self, name: str, text: str) -> None:
        (self.sysfs / name).parent.mkdir(parents=True, exist_ok=True)
        (self.sysfs / name).write_text(text)

    def erase(self, fd: int, offset: int, length: int) -> None:
        if self.err:
            raise OSError(self.err, os.strerror(self.err))
        self.erased.append((offset, length))


@pytest.fixture
def emmc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emmc:
    """Every image is on it while the test runs."""
    made = Emmc(tmp_path / "sysfs")
    made.tell("device/life_time", "0x03 0x01")
    made.tell("device/pre_eol_info", "0x02")
    monkeypatch.setattr(node, "node_of", lambda fd: node.BlockNode(made.sysfs))
    monkeypatch.setattr(node, "can_erase", lambda fd: True)
    monkeypatch.setattr(backend, "erase", made.erase)
    return made


pytestmark = pytest.mark.usefixtures("each_aio")


def test_driver_is_told_how_worn_the_medium_is(tmp_path: Path, emmc: Emmc) -> None:
    with disk(str(image(tmp_path))) as d:
        done = d.request(GET_LIFETIME, room=6)
        assert (done.data, done.written) == (bytes([2, 0, 3, 0, 1, 0, OK]), 7)
        emmc.tell("device/life_time", "0x04 0x01")
        assert d.request(GET_LIFETIME, room=8).data[2:4] == bytes([4, 0])


def test_read_only_disk_tells_how_worn_it_is(tmp_path: Path, emmc: Emmc) -> None:
    with disk(f"{image(tmp_path)},ro") as d:
        assert d.request(GET_LIFETIME, room=6).data[-1] == OK


def test_legacy_driver_is_told_how_worn_the_medium_is(tmp_path: Path, emmc: Emmc) -> None:
    with disk(str(image(tmp_path)), legacy=True) as d:
        assert d.request(GET_LIFETIME, room=6).data == bytes([2, 0, 3, 0, 1, 0, OK])


def test_lifetime_that_has_no_room_or_is_gone_is_an_error(tmp_path: Path, emmc: Emmc) -> None:
    with disk(str(image(tmp_path))) as d:
        assert d.request(GET_LIFETIME, room=5).data == b"\xa5" * 5 + bytes([IOERR])
        (emmc.sysfs / "device/life_time").unlink()
        assert d.request(GET_LIFETIME, room=6).data[-1] == IOERR


def test_file_does_not_tell_how_worn_it_is(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        assert not d.driver.registers.offered() & (LIFETIME | SECURE_ERASE)
        assert d.request(GET_LIFETIME, room=6).data[-1] == UNSUPP


def test_lifetime_that_was_not_accepted_is_not_told(tmp_path: Path, emmc: Emmc) -> None:
    with disk(str(image(tmp_path)), start=False) as d:
        d.driver.start(d.driver.registers.offered() & ~LIFETIME)
        assert d.request(GET_LIFETIME, room=6).data[-1] == UNSUPP


def test_range_is_erased_where_it_is_on_the_medium(tmp_path: Path, emmc: Emmc) -> None:
    with disk(f"{image(tmp_path)},secure_erase,range=8/1024,sectorsize=512/4096") as d:
        assert d.driver.registers.offered() & SECURE_ERASE
        assert d.driver.read_config(ERASE_AT, 12) == b"".join(n.to_bytes(4, "little") for n in (1024, 1, 8))
        assert d.request(ERASE, 0, segment(16, 4)).data[-1] == OK
        assert emmc.erased == [(24 * 512, 4 * 512)]


@pytest.mark.parametrize(
    ("segments", "status"),
    [
        (segment(1020, 5), IOERR),
        (segment(0, 1) * 2, IOERR),
        (segment(0, 1, 1), UNSUPP),
        (segment(0, 1, 2), UNSUPP),
        (b"", IOERR),
        (segment(8, 0), OK),
    ],
)
def test_wrong_range_erases_nothing(tmp_path: Path, emmc: Emmc, segments: bytes, status: int) -> None:
    with disk(f"{image(tmp_path, 1024)},secure_erase") as d:
        assert d.request(ERASE, 0, segments).data[-1] == status
    assert emmc.erased == []


@pytest.mark.parametrize(("err", "status"), [(errno.EIO, IOERR), (errno.EOPNOTSUPP, UNSUPP), (errno.ENOTTY, UNSUPP)])
def test_erase_that_fails_is_told(tmp_path: Path, emmc: Emmc, err: int, status: int) -> None:
    emmc.err = err
    with disk(f"{image(tmp_path)},secure_erase") as d:
        assert d.request(ERASE, 0, segment(0, 8)).data[-1] == status


@pytest.mark.parametrize("options", [",secure_erase,ro", ""])
def test_erase_is_offered_where_it_is_asked_for_and_may_write(tmp_path: Path, emmc: Emmc, options: str) -> None:
    with disk(f"{image(tmp_path)}{options}") as d:
        assert not d.driver.registers.offered() & SECURE_ERASE
        assert d.request(ERASE, 0, segment(0, 8)).data[-1] == (IOERR if "ro" in options else UNSUPP)
    assert emmc.erased == []


def test_erase_that_was_not_accepted_is_not_done(tmp_path: Path, emmc: Emmc) -> None:
    with disk(f"{image(tmp_path)},secure_erase", start=False) as d:
        d.driver.start(d.driver.registers.offered() & ~SECURE_ERASE)
        assert d.request(ERASE, 0, segment(0, 8)).data[-1] == UNSUPP
    assert emmc.erased == []


def test_slot_that_may_get_a_medium_shows_whole_fields(tmp_path: Path) -> None:
    with disk("nodisk,secure_erase") as d:
        assert d.driver.read_config(ERASE_AT, 12) == (0).to_bytes(8, "little") + (1).to_bytes(4, "little")


def test_erase_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="secure_erase promises: only block devices"):
        open_image(config(f"{image(tmp_path)},secure_erase"))


def test_erase_that_the_kernel_can_not_do_is_refused(
    tmp_path: Path, emmc: Emmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "can_erase", lambda fd: False)
    assert "secure_erase" in (problem(config(f"{image(tmp_path)},secure_erase")) or "")


def test_host_managed_disk_is_refused_by_name_with_what_is_allowed(tmp_path: Path, emmc: Emmc) -> None:
    emmc.tell("queue/zoned", "host-managed\n")
    path = image(tmp_path)
    with pytest.raises(ConfigError, match=f"image {path} is a host-managed zoned disk.*allowed are the option ro"):
        open_image(config(str(path)))
    assert problem(config(f"{path},ro")) is None


def test_host_aware_disk_takes_any_write(tmp_path: Path, emmc: Emmc) -> None:
    emmc.tell("queue/zoned", "host-aware\n")
    assert medium.problem(config(str(image(tmp_path)))) is None
