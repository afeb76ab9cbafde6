"""virtio-net's control queue with one pair: what the driver wants to receive, its address, the link."""

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.testing import SimMachine
from tests.devices.virtio_net.net_rig import ECN, MRG_RXBUF, NEEDS_CSUM, PLAIN, TCPV4, Card, card, frame, vnet
from tests.virtio.pause import pause, resume

CONTROL = 2
PROMISC, MAC_TABLE, MAC_ADDR, VLAN_ADD, ANNOUNCE_ACK, OFFLOADS = (0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (5, 0)
MODERN, CTRL_VQ, GUEST_ANNOUNCE = 1 << 32, 1 << 17, 1 << 21
OTHER = bytes.fromhex("0200000000aa")
pytestmark = pytest.mark.usefixtures("way")


def say(c: Card, command: tuple[int, int], data: bytes = b"") -> int:
    out = [bytes(command), data] if data else [bytes(command)]
    return c.driver.queue(CONTROL).transfer(out, [1]).data[0]


def to(address: bytes, size: int = 60) -> bytes:
    return PLAIN + address + frame(size=size)[6:]


def arrives(c: Card, data: bytes) -> bool:
    return bool(c.inject(data))


def test_frames_for_others_are_dropped_once_the_driver_says_so_and_until_the_reset() -> None:
    with card() as c:
        c.post(*[2048] * 8)
        own = c.driver.read_config(0, 6)
        assert arrives(c, to(OTHER))
        assert say(c, PROMISC, b"\0") == 0
        assert not arrives(c, to(OTHER))
        assert arrives(c, to(own))
        c.driver.start()
        c.post(2048)
        assert arrives(c, to(OTHER))


def test_net_ctrl_mac_drop() -> None:
    """net.ctrl.mac.drop: a frame for nobody's address, neither the card's nor one in the table, of both kinds."""
    station, group, other_group = (bytes.fromhex(text) for text in ("0200000000bb", "01005e000001", "01005e000002"))
    with card() as c:
        c.post(*[2048] * 8)
        own = c.driver.read_config(0, 6)
        assert say(c, PROMISC, b"\0") == 0
        assert say(c, MAC_TABLE, b"\1\0\0\0" + station + b"\1\0\0\0" + group) == 0
        heard = [one for one in (own, station, group, OTHER, other_group) if arrives(c, to(one))]
        assert heard == [own, station, group]


def test_frame_that_waits_for_room_is_held_to_a_new_filter() -> None:
    with card() as c:
        c.post(64)
        c.peer.send(to(OTHER, size=1000))
        c.machine.settle()
        assert say(c, PROMISC, b"\0") == 0
        c.post(2048)
        assert c.rx.completed() == []


def test_filter_survives_a_pause() -> None:
    with card() as c:
        c.post(2048)
        assert say(c, PROMISC, b"\0") == 0
        pause(c.machine.bus.functions[0])
        resume(c.machine.bus.functions[0])
        assert not arrives(c, to(OTHER))


def test_filter_holds_for_a_receive_queue_that_comes_back() -> None:
    with card() as c:
        assert say(c, PROMISC, b"\0") == 0
        c.driver.reset_queue(0)
        c.driver.setup_queue(0)
        c.post(2048)
        assert not arrives(c, to(OTHER))


def test_address_by_command_is_shown_filtered_by_and_gone_after_a_reset() -> None:
    with card() as c:
        before = c.driver.read_config(0, 6)
        c.post(*[2048] * 4)
        assert say(c, PROMISC, b"\0") == 0
        assert say(c, MAC_ADDR, OTHER) == 0
        assert c.driver.read_config(0, 6) == OTHER
        assert arrives(c, to(OTHER))
        assert not arrives(c, to(before))
        for bad in (bytes(6), b"\1" + OTHER[1:]):
            assert say(c, MAC_ADDR, bad) == 1
        assert c.driver.read_config(0, 6) == OTHER
        c.driver.reset()
        assert c.driver.read_config(0, 6) == before


@pytest.mark.parametrize("command", [PROMISC, MAC_TABLE, MAC_ADDR, VLAN_ADD, ANNOUNCE_ACK, OFFLOADS, (4, 0), (9, 9)])
def test_command_of_a_feature_that_was_not_negotiated_is_refused(command: tuple[int, int]) -> None:
    with card(features=MODERN | CTRL_VQ) as c:
        assert say(c, command, bytes(8)) == 1


def test_table_longer_than_a_command_may_be_is_refused_unread() -> None:
    with card() as c:
        count = 11_000
        data = count.to_bytes(4, "little") + bytes(6 * count) + bytes(4)
        assert say(c, MAC_TABLE, data) == 1


def test_link_that_is_cut_carries_nothing_and_what_came_meanwhile_is_lost() -> None:
    with card() as c:
        c.post(*[2048] * 4)
        config = c.driver.config_interrupts
        c.device.set_link(False)
        c.machine.settle()
        assert c.driver.read_config(6, 2) == b"\0\0"
        assert c.driver.config_interrupts == config + 1
        assert not arrives(c, to(OTHER))
        c.tx.transfer([PLAIN, frame(b"lost")])
        assert c.sent() == []
        c.device.set_link(True)
        c.machine.settle()
        assert c.rx.completed() == []
        c.tx.transfer([PLAIN, frame(b"out")])
        assert c.sent() == [PLAIN + frame(b"out")]
        assert arrives(c, to(OTHER))


@pytest.mark.parametrize("asked", [True, False])
def test_driver_that_can_announce_is_asked_to_when_the_link_comes_back(asked: bool) -> None:
    with card(features=MODERN | CTRL_VQ | (GUEST_ANNOUNCE | 1 << 16 if asked else 1 << 16)) as c:
        for up in (False, True, True):
            c.device.set_link(up)
        c.machine.settle()
        assert c.driver.read_config(6, 1)[0] == (3 if asked else 1)
        if asked:
            assert say(c, ANNOUNCE_ACK) == 0
            assert c.driver.read_config(6, 1) == b"\1"


def test_link_is_set_by_the_machine_and_only_of_cards() -> None:
    with card() as c:
        function = c.machine.bus.functions[0]
        c.machine.machine.devices.set_link(function.context.bdf, False)
        c.machine.settle()
        assert c.driver.read_config(6, 1) == b"\0"
    with SimMachine() as machine:
        console = machine.add("virtio-console", "@pty:con", slot=3)
        with pytest.raises(ConfigError, match="no network card"):
            machine.machine.devices.set_link(console.context.bdf, True)


def test_driver_is_told_mtu_speed_and_duplex() -> None:
    with card(text="tap=t0,mtu=9000,speed=25000,duplex=full") as c:
        assert c.driver.features & (1 << 3 | 1 << 63) == 1 << 3 | 1 << 63
        assert c.driver.read_config(10, 7) == (9000).to_bytes(2, "little") + (25000).to_bytes(4, "little") + b"\1"
    with card(text="tap=t0,duplex=half") as c:
        assert c.driver.read_config(12, 5) == b"\xff\xff\xff\xff\0"
    with card() as c:
        assert not c.driver.features & (1 << 3 | 1 << 63)


def test_frame_longer_than_the_mtu_is_dropped_unless_it_is_to_be_cut() -> None:
    segments = vnet(NEEDS_CSUM, TCPV4 | ECN, 54, 1448, 34, 16) + bytes(2)
    with card(text="tap=t0,mtu=1500") as c:
        c.post(*[65_600] * 4)
        assert arrives(c, to(OTHER, size=1514))
        assert not arrives(c, to(OTHER, size=1515))
        assert arrives(c, segments + to(OTHER, size=9000)[12:])
        assert c.driver.features & MRG_RXBUF
