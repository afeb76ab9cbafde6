"""virtio-net as its driver and its network see it. Test names hold ids of the conformance table or bug rows."""

import errno
import logging
import struct
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.devices.virtio_net import acrn_dm_device_types
from acrn_dm.devices.virtio_net.receive import BUDGET
from acrn_dm.devices.virtio_net.request import MAX_FRAME
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_net.net_rig import (
    CSUM,
    DATA_VALID,
    GUEST_CSUM,
    GUEST_TSO4,
    HOST_TSO4,
    MRG_RXBUF,
    NEEDS_CSUM,
    PLAIN,
    RX,
    STATUS,
    TCPV4,
    TX,
    card,
    frame,
    vnet,
)

ONE_BUFFER = PLAIN[:10] + struct.pack("<H", 1)
CTRL_VQ = 1 << 17
pytestmark = pytest.mark.usefixtures("way")


def test_transmitted_frame_reaches_the_tap_behind_a_clean_header() -> None:
    with card() as c:
        done = c.tx.transfer([PLAIN + frame(b"hello")])
        assert (done.written, c.sent()) == (0, [PLAIN + frame(b"hello")])


def test_received_frame_reaches_the_guest() -> None:
    with card() as c:
        c.post(2048)
        done = c.inject(PLAIN + frame(b"hello"))
        assert [d.written for d in done] == [72]
        assert done[0].data[:72] == ONE_BUFFER + frame(b"hello")


def test_backend_without_headers_offers_no_offloads_and_adds_its_own() -> None:
    with card(vnet_header=False) as c:
        assert c.driver.features & (CSUM | GUEST_CSUM | HOST_TSO4) == 0
        c.post(2048)
        assert c.inject(frame(b"in"))[0].data[:72] == ONE_BUFFER + frame(b"in")
        c.tx.transfer([PLAIN + frame(b"out")])
        assert c.sent() == [frame(b"out")]


@pytest.mark.parametrize(
    ("legacy", "features", "header"), [(True, 0, 10), (True, MRG_RXBUF, 12), (False, 0, 12), (False, MRG_RXBUF, 12)]
)
def test_row_75_header_length_on_the_wire(legacy: bool, features: int, header: int) -> None:
    with card(legacy=legacy, features=features) as c:
        assert c.tap.settings == [(header, 0)]
        c.tx.transfer([PLAIN[:header] + frame(b"t")])
        assert c.sent() == [PLAIN[:header] + frame(b"t")]
        c.post(2048)
        assert c.inject(PLAIN[:header] + frame(b"r"))[0].written == header + 60


def test_offloads_the_driver_took_are_set_in_the_tap() -> None:
    with card(features=GUEST_CSUM | GUEST_TSO4) as c:
        assert c.tap.settings == [(12, GUEST_CSUM | GUEST_TSO4)]


def test_segmentation_request_passes_through() -> None:
    header = vnet(NEEDS_CSUM, TCPV4, 54, 1448, 34, 16) + bytes(2)
    with card() as c:
        c.tx.transfer([header, frame(size=9000)])
        assert c.sent() == [header + frame(size=9000)]


@pytest.mark.parametrize("cuts", [(12,), (1, 11), (10, 2), (13,), (11, 1, 30)])
def test_any_framing_of_a_transmitted_frame_means_the_same(cuts: tuple[int, ...]) -> None:
    data, parts = PLAIN + frame(b"cut"), []
    for cut in cuts:
        parts.append(data[:cut])
        data = data[cut:]
    with card() as c:
        c.tx.transfer([*parts, data])
        assert c.sent() == [PLAIN + frame(b"cut")]


@pytest.mark.parametrize("sizes", [(12, 2000), (1, 11, 2000), (5, 60, 60), (72,)])
def test_any_framing_of_a_receive_buffer_means_the_same(sizes: tuple[int, ...]) -> None:
    with card(features=0) as c:
        c.rx.send([], list(sizes))
        c.rx.kick()
        assert c.inject(PLAIN + frame(b"cut"))[0].data[:72] == ONE_BUFFER + frame(b"cut")


def test_frame_of_more_buffers_than_a_system_call_takes_is_sent() -> None:
    body = frame(size=1010)
    with card() as c:
        c.tx.transfer([PLAIN, *[body[i : i + 1] for i in range(len(body))]])
        assert c.sent() == [PLAIN + body]


@pytest.mark.parametrize("length", range(33))
def test_row_78_short_frame_is_dropped_or_sent_whole(length: int) -> None:
    data = (PLAIN + frame(b"\x81\x00"))[:length]
    with card() as c:
        done = c.tx.transfer([data] if data else [], [] if data else [4])
        assert done.written == 0
        assert c.sent() == ([data] if length >= 26 else [])
        assert c.device.pairs[0].tx is not None
        assert c.device.pairs[0].tx.dropped == (length < 26)


@pytest.mark.parametrize("length", range(21))
def test_row_78_short_frame_from_the_network(length: int) -> None:
    with card() as c:
        c.post(2048)
        done = c.inject(PLAIN + frame(b"\x81\x00")[:length], PLAIN + frame(b"next"))
        assert done[-1].data[:72] == ONE_BUFFER + frame(b"next") if length < 14 else done[0].written == 12 + length


def test_frame_too_long_for_any_packet_is_dropped() -> None:
    with card(memory=64 << 20) as c:
        assert c.tx.transfer([PLAIN, bytes(MAX_FRAME + 1)]).written == 0
        assert c.sent() == []


def test_row_79_used_length_of_a_transmitted_frame_is_zero_even_with_writable_buffers() -> None:
    with card() as c:
        done = c.tx.transfer([PLAIN + frame()], [64])
        assert (done.written, done.data) == (0, b"\xa5" * 64)


def test_card_with_one_pair_has_its_control_queue_behind_it() -> None:
    with card() as c:
        assert c.driver.registers.offered() & CTRL_VQ
        assert c.driver.all_queues() == [0, 1, 2]
        assert c.driver.queue(2).transfer([bytes((0, 0, 1))], [1]).data == b"\0"


@pytest.mark.parametrize("bad", [vnet(NEEDS_CSUM, start=60, offset=60), vnet(0, TCPV4, 54, 1448)])
def test_row_77_malformed_header_costs_only_its_frame(bad: bytes) -> None:
    with card() as c:
        c.tx.transfer([bad + bytes(2) + frame(b"bad")])
        c.tx.transfer([PLAIN + frame(b"good")])
        assert c.sent() == [PLAIN + frame(b"good")]
        assert c.machine.failures == []


def test_net_rx_mrg_num_buffers_fill_and_together() -> None:
    with card() as c:
        c.post(*[256] * 8)
        done = c.inject(PLAIN + frame(b"m", size=1000))
        assert [d.written for d in done] == [256, 256, 256, 244]
        assert struct.unpack_from("<H", done[0].data, 10) == (4,)
        assert b"".join(d.data[: d.written] for d in done)[12:] == frame(b"m", size=1000)


def test_net_rx_single_buffer_frame_too_large_for_it_is_dropped() -> None:
    with card(features=STATUS) as c:
        c.post(256, 256)
        done = c.inject(PLAIN + frame(size=1000), PLAIN + frame(b"fits"))
        assert [d.data[:72] for d in done] == [ONE_BUFFER + frame(b"fits")]
        assert c.device.pairs[0].rx is not None
        assert c.device.pairs[0].rx.dropped == 1


def test_frames_that_were_dropped_are_told_when_the_driver_leaves(caplog: pytest.LogCaptureFixture) -> None:
    with card(features=STATUS) as c, caplog.at_level(logging.DEBUG, "acrn_dm.devices.virtio_net.pair"):
        c.post(256)
        c.inject(PLAIN + frame(size=1000))
        c.tx.transfer([b"short"])
        c.driver.reset()
    assert [text.partition(": ")[2] for text in caplog.messages] == [
        "1 frames for the guest were dropped",
        "1 frames of the guest's were dropped",
    ]


def test_frame_larger_than_all_posted_buffers_waits_for_more() -> None:
    with card() as c:
        c.post(256)
        assert c.inject(PLAIN + frame(size=500)) == []
        c.post(256, 256)
        assert [d.written for d in c.rx.completed()] == [256, 256]


def test_frame_larger_than_the_whole_ring_is_dropped() -> None:
    with card() as c:
        c.driver.negotiate()
        c.driver.setup_queue(0, size=4)
        c.driver.setup_queue(1)
        c.driver.driver_ok()
        c.post(*[64] * 4)
        done = c.inject(PLAIN + frame(size=1000), PLAIN + frame(b"fits", size=30))
        assert [d.written for d in done] == [42]


def test_net_rx_flags_zero_and_no_tcpv4_stale_offloads_are_not_passed_on() -> None:
    with card(features=MRG_RXBUF) as c:
        c.post(4096, 4096)
        stale = [vnet(NEEDS_CSUM, TCPV4, 54, 1000, 34, 16), vnet(NEEDS_CSUM, start=34, offset=16)]
        done = c.inject(*[s + bytes(2) + frame(b"stale") for s in stale], vnet(DATA_VALID) + bytes(2) + frame(b"ok"))
        assert [d.data[:72] for d in done] == [ONE_BUFFER + frame(b"ok")]


def test_row_83_frames_wait_in_the_kernel_until_there_are_buffers() -> None:
    with card() as c:
        assert c.inject(*[PLAIN + frame(bytes([i])) for i in range(5)]) == []
        c.peer.send(PLAIN + frame(b"\5"))
        assert c.machine.io_loops["io"].step() == 0, "nobody watches a tap whose frames can't be taken"
        c.post(2048, 2048)
        assert [d.data[26] for d in c.rx.completed()] == [0, 1]
        c.post(2048, 2048, 2048)
        assert [d.data[26] for d in c.rx.completed()] == [2, 3, 4]


def test_row_83_idle_card_keeps_no_loop_busy() -> None:
    with card() as c:
        c.inject(PLAIN + frame())
        assert sum(loop.step() for loop in c.machine.io_loops.values()) == 0


def test_many_frames_leave_the_loop_to_others_in_between() -> None:
    with card() as c:
        c.rx.driver.machine.settle()
        c.post(*[128] * (BUDGET + 5))
        sent = 0
        try:
            for _ in range(BUDGET + 5):
                c.peer.send(PLAIN + frame())
                sent += 1
        except BlockingIOError:
            pytest.skip(f"the socket pair takes only {sent} frames")
        c.machine.io_loops["io"].step()
        assert len(c.rx.completed()) == BUDGET
        c.machine.settle()
        assert len(c.rx.completed()) == 5


def test_frames_the_network_does_not_take_wait_and_none_is_lost() -> None:
    total = 900
    with card(memory=32 << 20) as c:
        for i in range(total):
            c.tx.send([PLAIN + frame(struct.pack("<H", i), size=200)])
        c.tx.kick()
        c.machine.settle()
        assert len(c.tx.completed()) < total
        got = c.sent()
        while len(got) < total:
            c.machine.settle()
            more = c.sent()
            assert more
            got += more
        assert [struct.unpack_from("<H", data, 26)[0] for data in got] == list(range(total))
        assert all(d.written == 0 for d in c.tx.completed())


def test_blocked_card_does_not_keep_its_loop_busy() -> None:
    with card(memory=32 << 20) as c:
        for _ in range(900):
            c.tx.send([PLAIN + frame(size=200)])
        c.tx.kick()
        c.machine.settle()
        assert c.machine.io_loops["io"].step() == 0


def test_event_index_driver_is_kicked_for_again() -> None:
    with card() as c:
        for i in range(5):
            c.post(2048)
            assert len(c.inject(PLAIN + frame(bytes([i])))) == 1
            assert c.tx.transfer([PLAIN + frame()]).written == 0


def test_polled_card_works_without_kicks() -> None:
    with card(poll_ns=1_000_000, packed=False) as c:
        c.rx.send([], [2048])
        c.tx.send([PLAIN + frame(b"polled")])
        c.peer.send(PLAIN + frame())
        for _ in range(200):
            c.machine.io_loops["io"].step(0.01)
            if c.tx.ring.used_idx() and c.rx.ring.used_idx():
                break
        assert c.sent() == [PLAIN + frame(b"polled")]
        assert len(c.rx.completed()) == 1


@pytest.mark.parametrize("size", [0, 1, 11])
def test_receive_buffer_without_room_for_the_header_asks_for_a_reset(size: int) -> None:
    with card() as c:
        if size:
            c.rx.send([], [size])
        else:
            c.rx.send([b"readable"], [])
        c.rx.kick()
        c.inject(PLAIN + frame())
        assert c.driver.status & NEEDS_RESET
        assert len(c.machine.failures) == 1


def test_ring_that_breaks_while_frames_arrive_is_reported_once() -> None:
    with card(packed=False) as c:
        c.rx.ring.set_avail_idx(5000)
        c.rx.kick(force=True)
        c.inject(*[PLAIN + frame()] * 3)
        assert c.driver.status & NEEDS_RESET
        assert len(c.machine.failures) == 1
        c.driver.start()
        c.post(2048)
        assert len(c.rx.completed()) == 1


def test_ring_that_breaks_while_frames_wait_to_be_sent_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    with card(memory=32 << 20, packed=False) as c:
        for _ in range(900):
            c.tx.send([PLAIN + frame(size=200)])
        c.tx.kick()
        c.machine.settle()
        c.tx.ring.set_avail_idx(5000)
        c.tx.kick(force=True)
        c.machine.settle()
        while c.sent():
            c.machine.settle()
        assert len(c.machine.failures) == 1
        assert not [r for r in caplog.records if r.exc_info], "nothing unexpected was raised"


def test_reset_leaves_waiting_frames_to_the_next_driver() -> None:
    with card() as c:
        c.driver.reset()
        c.peer.send(PLAIN + frame(b"patient"))
        c.machine.settle()
        c.driver.start()
        c.post(2048)
        assert [d.data[:72] for d in c.rx.completed()] == [ONE_BUFFER + frame(b"patient")]


def test_reset_with_frames_in_the_backlog_is_clean() -> None:
    with card(memory=32 << 20) as c:
        for _ in range(900):
            c.tx.send([PLAIN + frame(size=200)])
        c.tx.kick()
        c.machine.settle()
        c.driver.reset()
        c.sent()
        c.driver.start()
        c.tx.transfer([PLAIN + frame(b"fresh")])
        assert c.sent() == [PLAIN + frame(b"fresh")]


def test_interface_that_vanishes_takes_the_link_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with card(native=False) as c:
        assert c.driver.read_config(6, 2) == b"\1\0"
        before = c.driver.config_interrupts

        def gone(*args: object) -> int:
            raise OSError(errno.EBADFD, "gone")

        monkeypatch.setattr(c.tap, "write", gone)
        monkeypatch.setattr(c.tap, "read", gone)
        assert c.tx.transfer([PLAIN + frame()]).written == 0
        assert c.tx.transfer([PLAIN + frame()]).written == 0
        assert c.driver.read_config(6, 2) == b"\0\0"
        assert c.driver.config_interrupts == before + 1
        assert c.machine.failures == []


def test_frame_the_host_refuses_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with card(native=False) as c:

        def refuse(*args: object) -> bool:
            raise OSError(errno.EINVAL, "no")

        monkeypatch.setattr(c.tap, "write", refuse)
        assert c.tx.transfer([PLAIN + frame()]).written == 0
        assert c.device.pairs[0].tx is not None
        assert c.device.pairs[0].tx.dropped == 1
        assert c.driver.read_config(6, 2) == b"\1\0"


def test_configuration_is_address_and_link() -> None:
    with card(text="tap=t0,mac=02:11:22:33:44:55") as c:
        assert c.driver.read_config(0, 8) == bytes.fromhex("021122334455") + b"\1\0"


def test_address_a_legacy_driver_wrote_is_stored_until_reset() -> None:
    with card(text="tap=t0,mac=02:11:22:33:44:55", legacy=True) as c:
        for i in range(7):
            c.driver.registers.write_config(i, 1, 0x66)
        assert c.driver.read_config(0, 8) == b"\x66" * 6 + b"\1\0"
        c.driver.reset()
        assert c.driver.read_config(0, 6) == bytes.fromhex("021122334455")


def test_d_net_cfg_ro() -> None:
    """d.net.cfg.ro: nothing in the configuration changes by a modern driver's writes, through whichever registers."""
    with card(text="tap=t0,mac=02:11:22:33:44:55,mq=2") as c:
        before = c.driver.read_config(0, 10)
        for size in (1, 2, 4):
            for offset in range(10):
                c.driver.registers.write_config(offset, size, 0x6666_6666 & (1 << 8 * size) - 1)
                c.machine.driver_legacy(3).registers.write_config(offset, size, 0x66)
        assert c.driver.read_config(0, 10) == before


def test_vhost_is_refused_while_there_is_no_such_backend() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="vhost"):
        machine.add(acrn_dm_device_types()[0], "tap=t0,vhost", slot=3)


def test_check_tells_how_to_make_a_missing_tap() -> None:
    with SimMachine() as machine:
        lines = machine.add(acrn_dm_device_types()[0], "tap=nosuchtap0", slot=3).check()
    assert len(lines) == 1
    assert "nosuchtap0 does not exist" in lines[0]
    assert not Path("/sys/class/net/nosuchtap0").exists()


def test_check_refuses_an_interface_that_is_no_tap() -> None:
    with SimMachine() as machine:
        assert "neither a tap" in machine.add(acrn_dm_device_types()[0], "tap=lo", slot=3).check()[0]


def test_row_52_frame_and_kicks_before_the_queues_are_set_up_touch_nothing() -> None:
    """CVE-2021-36143: a frame for a receive queue that had no ring."""
    with card() as c:
        c.driver.negotiate()
        c.peer.send(PLAIN + frame(b"early"))
        for queue in (RX, TX):
            c.driver.registers.notify(queue)
        c.machine.settle()
        c.driver.setup_queue(TX)
        c.driver.driver_ok()
        c.machine.settle()
        c.tx.transfer([PLAIN, frame(b"out")])
        assert [f[12:] for f in c.sent()] == [frame(b"out")]
        assert c.machine.failures == []
        c.driver.start()
        c.post(2048)
        assert [d.data[12:].rstrip(b"\xa5") for d in c.rx.completed()] == [frame(b"early")]
