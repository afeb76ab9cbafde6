"""A card on a packet driver: frames both ways, what holds them up, and what a driver does wrong."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from acrn_dm import DriverContext, PacketFile, PacketPort
from acrn_dm.base.errors import ConfigError, HostError, PluginError
from tests.devices.virtio_net.drivers.driver_rig import Options, Sink, driven
from tests.devices.virtio_net.net_rig import CSUM, NEEDS_CSUM, TX, frame, looped_tap, vnet
from tests.patience import comes_true

F_MQ = 1 << 22
STATUS_AT, LINK_UP = 6, 1


def test_sent_frame_reaches_the_driver_without_a_header() -> None:
    with driven() as card:
        card.send(frame(b"hello"))
        assert comes_true(lambda: card.driver.sent == [(frame(b"hello"), 0)])


def test_frames_of_a_pair_come_in_order() -> None:
    with driven() as card:
        frames = [frame(bytes([n])) for n in range(20)]
        for one in frames:
            card.send(one)
        assert comes_true(lambda: [sent for sent, _ in card.driver.sent] == frames)


def test_received_frame_reaches_the_guest() -> None:
    with driven() as card:
        card.post()
        assert card.driver.port.receive(frame(b"there"))
        assert card.received() == frame(b"there")


def test_frame_says_which_pair_it_was_sent_by() -> None:
    with driven(text="driver=sink,mq=2") as card:
        card.send(frame(b"second"), pair=1)
        assert comes_true(lambda: card.driver.sent == [(frame(b"second"), 1)])


def test_frame_for_a_pair_that_rests_goes_to_one_that_is_used() -> None:
    with driven(text="driver=sink,mq=2") as card:
        card.post()
        assert card.driver.port.receive(frame(b"x"), pair=1)
        assert card.received() == frame(b"x")


class Offloading(Sink):
    """That takes checksums."""

    offloads = CSUM

    def __init__(self, options: Options, context: DriverContext) -> None:
        super().__init__(options, context)
        self.settings: list[tuple[int, int]] = []

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        self.settings.append((header_bytes, offloads))


def test_driver_with_offloads_gets_the_packet_header() -> None:
    header = vnet(NEEDS_CSUM, start=14, offset=6) + bytes(2)
    with driven(Offloading) as card:
        card.guest.queue(TX).transfer([header + frame(b"sum")])
        assert comes_true(lambda: card.driver.sent == [(header + frame(b"sum"), 0)])
        assert card.driver.settings == [(12, 0)]


def test_card_offers_the_offloads_of_its_driver_and_no_others() -> None:
    with driven(Offloading) as card:
        assert card.device.features & 0b11_1011_1000_0011 == CSUM
    with driven() as card:
        assert card.device.features & 0b11_1011_1000_0011 == 0


def test_driver_that_blocks_holds_up_the_guest_and_loses_nothing() -> None:
    gate = threading.Event()

    class Slow(Sink):
        def send(self, frame: bytes, pair: int) -> None:
            assert gate.wait(30)
            super().send(frame, pair)

    frames = [frame(bytes([n % 256]), 1400) for n in range(400)]
    with driven(Slow) as card:
        queue = card.guest.queue(TX)
        for one in frames:
            queue.send([bytes(12) + one])
        queue.kick()
        card.machine.settle()
        taken = len(queue.completed())
        assert 0 < taken < 400
        gate.set()

        def all_sent() -> bool:
            card.machine.settle()
            return len(card.driver.sent) == 400

        assert comes_true(all_sent)
        assert [sent for sent, _ in card.driver.sent] == frames


def test_card_that_is_full_says_so_until_there_is_room_again() -> None:
    with driven() as card:
        count = 0
        while card.driver.port.receive(frame(size=1400)):
            count += 1
            assert count < 10_000
        assert not card.driver.port.wait(0)
        for _ in range(count):
            card.post()
        card.machine.settle()
        assert card.driver.port.wait(30)
        assert card.driver.port.receive(frame())


def test_frame_that_is_too_long_for_any_card_is_the_driver_s_mistake() -> None:
    with driven() as card, pytest.raises(ValueError, match="is none"):
        card.driver.port.receive(bytes(1 << 20))


def test_link_is_the_driver_s_word() -> None:
    with driven() as card:
        assert card.guest.read_config(STATUS_AT, 1)[0] & LINK_UP
        before = card.guest.config_interrupts
        card.driver.port.link(False)
        card.machine.settle()
        assert not card.guest.read_config(STATUS_AT, 1)[0] & LINK_UP
        assert card.guest.config_interrupts == before + 1
        card.driver.port.link(True)
        card.machine.settle()
        assert card.guest.read_config(STATUS_AT, 1)[0] & LINK_UP


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), SystemExit(3)], ids=repr)
def test_fault_of_a_driver_is_one_line_and_a_link_that_is_down(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(Sink):
        def send(self, frame: bytes, pair: int) -> None:
            raise error

    with driven(Wrong) as card:
        card.send(frame())

        def down() -> bool:
            card.machine.settle()
            return not card.guest.read_config(STATUS_AT, 1)[0] & LINK_UP

        assert comes_true(down)
        card.send(frame())  # the card goes on, and drops it
        assert card.machine.failures == []
    said, gone = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "driver sink (plugin" in said
    assert "it gets no frame any more" in said
    assert "the link is down" in gone


def test_frame_that_the_host_refuses_is_dropped_and_the_next_one_goes() -> None:
    class Choosy(Sink):
        def send(self, frame: bytes, pair: int) -> None:
            if not self.sent:
                self.sent.append((b"", pair))
                raise OSError(5, "not this one")
            super().send(frame, pair)

    with driven(Choosy) as card:
        card.send(frame(b"1"))
        card.send(frame(b"2"))
        assert comes_true(lambda: (frame(b"2"), 0) in card.driver.sent)
        assert card.device._carrier._port is not None
        assert card.device._carrier._port.dropped == 1


def test_driver_is_closed_once_and_gets_nothing_then() -> None:
    with driven() as card:
        driver = card.driver
    assert driver.closed == 1
    assert not driver.port.receive(frame())
    assert not driver.port.wait(0)
    driver.port.link(False)


def test_driver_that_does_not_come_back_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("acrn_dm.devices.virtio_net.drivers.port.CLOSE_S", 0.01)
    gate = threading.Event()
    entered = threading.Event()

    class Stuck(Sink):
        def send(self, frame: bytes, pair: int) -> None:
            entered.set()
            gate.wait(30)

    try:
        with driven(Stuck) as card:
            card.send(frame())
            assert entered.wait(30)
        assert card.driver.closed == 0
        assert "left as it is" in caplog.text
    finally:
        gate.set()


class Described(Sink):
    """With descriptors of its own."""

    many = 1

    def files(self, pairs: int) -> Sequence[PacketFile]:
        return [looped_tap(vnet_header=False) for _ in range(self.many)]

    def open(self, port: PacketPort, pairs: int) -> None:
        raise AssertionError("not asked for")


def test_driver_with_descriptors_carries_frames_by_them() -> None:
    with driven(Described) as card:
        assert type(card.device.taps[0]).__name__ == "FakeTap"
        card.send(frame())


def opening(error: BaseException) -> Callable[..., Any]:
    class Shut(Sink):
        def open(self, port: PacketPort, pairs: int) -> None:
            raise error

    return Shut


@pytest.mark.parametrize(
    ("driver", "kind", "said"),
    [
        (opening(ZeroDivisionError("boom")), PluginError, "driver sink.*ZeroDivisionError: boom"),
        (opening(OSError(13, "no")), HostError, "driver sink"),
        (opening(ConfigError("not so")), ConfigError, "not so"),
        (type("Two", (Described,), {"many": 2}), PluginError, "not 1 PacketFile"),
        (lambda options, context: 5, PluginError, "made a int, which is no PacketDriver"),
    ],
)
def test_driver_that_can_t_be_opened_says_why(driver: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said), driven(driver):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("driver=sunk", "no packet driver 'sunk'; did you mean 'sink'"),
        ("driver=sink,deepness=1", "unknown option 'deepness'; .*known: depth"),
        ("driver=sink,depth=x", "expected a whole number"),
        ("driver=sink,mq=2,iothread=2", "frames are moved by one thread"),
        ("driver=sink,vhost=on", "unknown option 'vhost'"),
        ("driver=sink,driver=sink", "given twice"),
        ("driver=", "expected the name of a driver"),
    ],
)
def test_wrong_option_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said), driven(text=text):
        pass
