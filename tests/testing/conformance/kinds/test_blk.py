"""Rules of disks: the built-in one keeps them all, and each is broken by a disk that breaks it."""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.devices.virtio_blk import device, request
from acrn_dm.devices.virtio_blk.cache_mode import CacheMode
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_blk.drivers import stepping
from acrn_dm.devices.virtio_blk.image import backend, node
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.request import Op, Status
from acrn_dm.testing.conformance import conform, kinds
from acrn_dm.testing.conformance.kinds.blk import disk as blk
from acrn_dm.testing.conformance.outside.image import ImageMedium
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.queue import Queue
from tests.testing.conformance.kinds.judging import judged, rows_of
from tests.testing.conformance.kinds.paper import Paper

BLOCK, SIZE = 2, 96
ALL = "writeback,discard=64:4:1,share=on"
WORLDS = {
    "image": (ALL, False),
    "read-only": ("ro,discard", False),
    "empty": ("", True),
    "direct": ("nocache,share=on", False),
    "large sectors": ("sectorsize=4096,share=on", False),
    "emmc": ("secure_erase,share=on", False),
}

Patch = Callable[[pytest.MonkeyPatch], None]


def _as_emmc(monkeypatch: pytest.MonkeyPatch, sysfs: Path) -> None:
    """Images are on an eMMC whose sysfs is in that folder; what is erased is zeroed."""
    (sysfs / "device").mkdir()
    (sysfs / "device/life_time").write_text("0x01 0x02")
    (sysfs / "device/pre_eol_info").write_text("0x01")
    monkeypatch.setattr(node, "node_of", lambda fd: node.BlockNode(sysfs))
    monkeypatch.setattr(node, "can_erase", lambda fd: True)
    monkeypatch.setattr(backend, "erase", lambda fd, offset, length: os.pwrite(fd, bytes(length), offset))


@pytest.fixture
def medium(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ImageMedium]:
    options, empty = WORLDS[name := getattr(request, "param", "image")]
    if name == "emmc":
        _as_emmc(monkeypatch, tmp_path)
    made = ImageMedium(options, empty=empty)
    yield made
    made.close()


@pytest.mark.stress
@pytest.mark.parametrize("medium", WORLDS, indirect=True)
def test_disk_keeps_every_rule(medium: ImageMedium) -> None:
    report = conform(medium.build, outside=medium, rules=kinds.RULES)
    assert report.failed == [], report.text()


def _offers(mask: int) -> Patch:
    """The disk offers other features."""
    return lambda monkeypatch: monkeypatch.setattr(BlkDevice, "features", property(lambda self: mask))


def _shows(at: int, data: bytes) -> Patch:
    """The configuration space has other bytes at *at*."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        was = device.config_space

        def space(*args: Any, **kwargs: Any) -> bytes:
            good = was(*args, **kwargs)
            return good[:at] + data + good[at + len(data) :]

        monkeypatch.setattr(device, "config_space", space)

    return patch


def _answers(judge: Callable[[Any, Any], Any]) -> Patch:
    """Requests are parsed otherwise: *judge* gets the chain and what was made of it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        was = device.parse
        monkeypatch.setattr(device, "parse", lambda chain, limits: judge(chain, was(chain, limits)))

    return patch


def _types(**more: Op) -> Patch:
    """Further request types, and some fewer, are known."""
    known = {int(name[1:]): op for name, op in more.items()}
    return lambda monkeypatch: monkeypatch.setattr(request, "TYPES", request.TYPES | known)


def _old_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "TYPES", {kind: op for kind, op in request.TYPES.items() if kind != 5})


def _framed(chain: Any, made: Any) -> Any:
    return made if len(next(iter(chain.readable(0)))) >= 16 else Status.IOERR


class _Segments:
    """Segments of discard and zeroing, read otherwise."""

    size = request.SEGMENT.size

    def __init__(self, flags: int) -> None:
        self.flags = flags

    def iter_unpack(self, data: bytes) -> Any:
        for sector, sectors, flags in struct.iter_unpack("<QII", data):
            yield sector, sectors, flags & self.flags


def _segments(flags: int) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(request, "SEGMENT", _Segments(flags))


def _erases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secure erase is offered, and done as a discard whatever its flags are."""
    offered = BlkDevice.features.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(BlkDevice, "features", property(lambda self: offered(self) | blk.SECURE_ERASE_F))
    _types(_14=Op.DISCARD)(monkeypatch)
    _segments(0)(monkeypatch)


def _method(owner: type, name: str, method: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, method)


def _executes(how: Callable[..., None]) -> Patch:
    """Requests are executed otherwise: *how* gets the true way and its arguments."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        was = stepping.execute
        monkeypatch.setattr(stepping, "execute", lambda *args, **kwargs: how(was, *args, **kwargs))

    return patch


def _volatile(was: Any, image: Any, made: Any, views: Any, *, durable: bool) -> None:
    was(image, made, views, durable=False)


def _never_flushes(was: Any, image: Any, made: Any, views: Any, *, durable: bool) -> None:
    if made.op is not Op.FLUSH:
        was(image, made, views, durable=durable)


def _hides_failures(was: Any, image: Any, made: Any, views: Any, *, durable: bool) -> None:
    with contextlib.suppress(OSError):
        was(image, made, views, durable=durable)


def _unchecked(op: Op, sector: int, length: int, limits: Any) -> Any:
    return request.Request(op, (request.Extent(min(sector, 8) * 512, length),))


def _status_ok(chain: Any, made: Any) -> Any:
    return Status.OK if made is Status.IOERR else made


def _misplaced(self: Image, views: Any, offset: int) -> None:
    self._read(views, (offset + 512) % self.size)


def _wrong_length(self: BlkDevice, queue: Queue, chain: Any, status: Status, filled: int) -> None:
    chain.write_at(chain.writable_bytes - 1, bytes((status,)))
    queue.push(chain, chain.writable_bytes)


def _always_default(self: CacheMode, features: int) -> None:
    self._features, self.writeback = features, self.option


def _held_to(change: Callable[[request.Limits], request.Limits]) -> Patch:
    """Requests are held to other limits than those that the driver accepted."""
    return _method(BlkDevice, "_current_limits", lambda self: change(self._limits))


def _reads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "read_cached", lambda self, views, offset: False)
    monkeypatch.setattr(Image, "read", _misplaced)


FAULTS: dict[str, Patch] = {
    "blk.flush.offer": _offers(blk.SEG_MAX),
    "blk.flush.offer_with_wce": _offers(blk.CONFIG_WCE),
    "blk.cfg.padding": _shows(33, b"\1"),
    "d.blk.capacity": _shows(0, b"\0\1\0\0\0\0\0\0"),
    "d.blk.sector512": lambda monkeypatch: monkeypatch.setattr(request, "SECTOR", 1024),
    "d.blk.req.layout": _answers(_framed),
    "d.blk.status.values": _answers(lambda chain, made: Status.IOERR if made is Status.UNSUPP else made),
    "d.blk.used_len.in": _method(BlkDevice, "_complete", _wrong_length),
    "d.blk.get_id": lambda monkeypatch: monkeypatch.setattr(
        device, "write_data", lambda chain, data: chain.write(b"x")
    ),
    "blk.zoned.reject_unnegotiated": _types(_18=Op.FLUSH),
    "blk.lifetime.no_offer": _types(_10=Op.GET_ID),
    "blk.dwz.unknown_flags.discard": _segments(0),
    "blk.dwz.unknown_flags.wz": _segments(1),
    "blk.dwz.unknown_flags.erase": _erases,
    "blk.discard.unmap": _segments(0),
    "blk.wz.zeroes": _method(Image, "write_zeroes", lambda self, offset, length, *, unmap, durable: None),
    "d.blk.dwz.segment": _held_to(lambda limits: attrs.evolve(limits, discard_segments=8)),
    "blk.wce.init0": _method(CacheMode, "features_ok", _always_default),
    "d.blk.wce.rw": _method(CacheMode, "write", lambda self, value, *, legacy: None),
    "blk.legacy.wce_status": _method(CacheMode, "driver_ok", lambda self, features: self.features_ok(features)),
    "blk.legacy.flush_out": _old_types,
    "blk.stable.before_complete.noflush": _executes(_volatile),
    "blk.stable.before_complete.wt": _executes(_volatile),
    "blk.stable.flush": _executes(_never_flushes),
    "dm.blk.data": _reads_elsewhere,
    "dm.blk.end": lambda monkeypatch: monkeypatch.setattr(request, "_transfer", _unchecked),
    "dm.blk.host_fault": _executes(_hides_failures),
    "dm.blk.unnegotiated": _held_to(lambda limits: limits),
}


@pytest.mark.stress
@pytest.mark.parametrize("row", FAULTS)
def test_disk_that_breaks_a_rule_fails_its_row(row: str, medium: ImageMedium, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[row](monkeypatch)
    assert judged(medium.build, row, outside=medium).failures


def _writes_anyway(medium: ImageMedium) -> Patch:
    def write(chain: Any, made: Any) -> Any:
        medium.path.chmod(0o600)
        medium.write(0, bytes(512))
        return made

    return _answers(write)


@pytest.mark.stress
@pytest.mark.parametrize("medium", ["read-only"], indirect=True)
@pytest.mark.parametrize("row", ["d.blk.ro", "blk.ro.no_write"])
def test_read_only_disk_that_is_written_fails_its_row(
    row: str, medium: ImageMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_answers(_status_ok) if row == "d.blk.ro" else _writes_anyway(medium))(monkeypatch)
    assert judged(medium.build, row, outside=medium).failures


@pytest.mark.stress
@pytest.mark.parametrize("medium", ["empty"], indirect=True)
def test_disk_that_is_silent_about_its_capacity_fails_its_row(
    medium: ImageMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VirtioDevice, "config_changed", lambda self: None)
    assert judged(medium.build, "blk.capacity.notify", outside=medium).failures


def _in_disorder(queue: Queue) -> None:
    for chain in list(queue.pop_batch())[::-1]:
        chain.write_at(chain.writable_bytes - 1, b"\0")
        queue.push(chain, 1)


def _worn_out(queue: Queue) -> None:
    for chain in queue.pop_batch():
        chain.write(b"\4\0\0\0\0\0\0"[: chain.writable_bytes])
        queue.push(chain)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


Z = blk.ZONED
CAPACITY = {0: (1 << 20).to_bytes(8, "little")}
PAPERS = {
    "blk.zoned.not_zoned": Paper(kind=BLOCK, features=Z, size=SIZE),
    "blk.zoned.legacy": Paper(kind=BLOCK, features=Z, size=SIZE),
    "blk.zoned.unaccepted_ha": Paper(kind=BLOCK, features=Z, size=SIZE, config={92: b"\2", 72: u32(8)}),
    "blk.zoned.unaccepted_hm": Paper(kind=BLOCK, features=Z, size=SIZE, config={92: b"\1"}),
    "blk.zoned.model.none": Paper(kind=BLOCK, features=Z, size=SIZE, config={92: b"\7"}),
    "blk.zoned.max_append_limit": Paper(
        kind=BLOCK, features=Z | blk.SEG_MAX | blk.SIZE_MAX, size=SIZE, config={8: u32(512, 1), 84: u32(9)}
    ),
    "blk.zoned.padding": Paper(kind=BLOCK, features=Z, size=SIZE, config={94: b"\1"}),
    "blk.zoned.erase_align": Paper(kind=BLOCK, features=Z | blk.SECURE_ERASE_F, size=SIZE, config={68: u32(12, 8)}),
    "d.blk.num_queues": Paper(kind=BLOCK, features=blk.MQ, size=60, config={34: b"\0\0"}),
    "blk.lifetime.no_reserved": Paper(kind=BLOCK, features=blk.LIFETIME, size=60, serve=_worn_out),
    "blk.legacy.wce_features": Paper(kind=BLOCK, features=blk.CONFIG_WCE | blk.FLUSH_F, size=60),
    "blk.legacy.barrier_before": Paper(kind=BLOCK, features=blk.BARRIER, size=60, config=CAPACITY, serve=_in_disorder),
}


@pytest.mark.stress
@pytest.mark.parametrize("medium", ["emmc"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [_shows(64, bytes(4)), _held_to(lambda limits: attrs.evolve(limits, erase_segments=4))],
    ids=["none", "more"],
)
def test_disk_that_erases_what_it_does_not_show_fails_its_row(
    fault: Patch, medium: ImageMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert judged(medium.build, "d.blk.dwz.segment", outside=medium).failures


@pytest.mark.stress
@pytest.mark.parametrize("row", PAPERS)
def test_disk_that_shows_the_wrong_thing_fails_its_row(row: str) -> None:
    assert judged(PAPERS[row].build, row).failures


def test_every_row_has_a_fault() -> None:
    alone = {"d.blk.ro", "blk.ro.ioerr", "blk.ro.no_write", "blk.capacity.notify"}
    together = {"blk.zoned.model.hm", "blk.zoned.model.ha", "d.blk.lifetime.layout"}
    assert set(rows_of("blk")) == {*FAULTS, *PAPERS} | alone | together
