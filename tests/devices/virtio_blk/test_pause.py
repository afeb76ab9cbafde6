"""A disk that is paused and goes on: each request is answered once, and the driver notices nothing."""

import threading
from pathlib import Path

import pytest

from acrn_dm.virtio.pci.transport import VirtioPci
from tests.devices.virtio_blk.blk_rig import (
    F_CONFIG_WCE,
    F_FLUSH,
    GET_ID,
    IOERR,
    OK,
    OUT,
    WRITEBACK_AT,
    Disk,
    disk,
    header,
    image,
    slow_medium,
)
from tests.virtio.pause import pause, resume

pytestmark = [pytest.mark.both_formats, pytest.mark.usefixtures("each_aio")]


def function(d: Disk) -> VirtioPci:
    found = d.machine.bus.functions[-1]
    assert isinstance(found, VirtioPci)
    return found


def test_requests_that_end_out_of_order_are_answered_once_each(tmp_path: Path) -> None:
    """The last one taken ends first; the ring goes on behind it, so the first one must not be forgotten."""
    path = image(tmp_path)
    with disk(str(path)) as d:
        with slow_medium(d) as gate:
            slow = d.queue.send([header(OUT, 5), b"s" * 512], [1])
            quick = d.queue.send([header(GET_ID)], [20, 1])
            d.queue.kick()
            d.machine.io_loops["io"].step()
            threading.Timer(0.02, gate.set).start()
            pause(function(d))
        done = d.queue.completed()
        resume(function(d))
        d.machine.settle()
        done += d.queue.completed()
        assert [(c.token, c.data[-1]) for c in done] == [(quick, OK), (slow, OK)]
        assert d.write(6, b"n" * 512) == OK
    assert path.read_bytes()[5 * 512 : 7 * 512] == b"s" * 512 + b"n" * 512


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize("features", [F_CONFIG_WCE, F_CONFIG_WCE | F_FLUSH])
def test_blk_stable_before_complete_wt_the_drivers_choice_survives_a_pause(
    tmp_path: Path, chosen: int, legacy: bool, features: int
) -> None:
    """Row blk.stable.before_complete.wt: writeback is 0 all the time, so a write waits for the medium."""
    option = "writethru" if chosen else "writeback"
    with disk(f"{image(tmp_path)},{option}", features=features, legacy=legacy) as d:
        d.driver.registers.write_config(WRITEBACK_AT, 1, chosen)
        pause(function(d))
        assert d.driver.read_config(WRITEBACK_AT, 1) == bytes([chosen])
        resume(function(d))
        d.machine.settle()
        assert d.driver.read_config(WRITEBACK_AT, 1) == bytes([chosen])
        assert d.write(0, bytes(512)) == OK
        assert d.device.image is not None
        assert d.device.image.trust.volatile == bool(chosen)


def test_request_that_is_wrong_is_answered_as_such_after_a_pause(tmp_path: Path) -> None:
    with disk(str(image(tmp_path))) as d:
        pause(function(d))
        d.queue.send([header(OUT, 1 << 40), bytes(512)], [1])
        d.queue.kick()
        resume(function(d))
        d.machine.settle()
        assert [c.data[-1] for c in d.queue.completed()] == [IOERR]
