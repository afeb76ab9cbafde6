"""Rules of what a card lets through: receive modes, addresses, VLANs (virtio 5.1.6.5.1 to 5.1.6.5.3)."""

import struct
from collections.abc import Sequence

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.net import bits
from acrn_dm.testing.conformance.kinds.net.card import ACK_OK, Card, card
from acrn_dm.testing.conformance.kinds.net.packets import BROADCAST, frame
from acrn_dm.testing.conformance.rule import rule

NET = ("net",)
PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST = ((0, number) for number in range(6))
MAC_TABLE_SET, VLAN_ADD, VLAN_DEL = (1, 0), (2, 0), (2, 1)
ON, OFF = b"\x01", b"\x00"
FOREIGN = bytes.fromhex("02f000000001")
GROUP, OTHER_GROUP = bytes.fromhex("01005e000101"), bytes.fromhex("01005e000202")
RX, RX_EXTRA = ("CTRL_RX",), ("CTRL_RX", "CTRL_RX_EXTRA")


def _passes(c: Card, *to: bytes) -> list[bool]:
    """Whether a frame to each of these addresses gets to the driver."""
    c.post_enough()
    result = []
    for number, address in enumerate(to):
        data = frame(bytes([number]), address)
        result.append(data in [r.data for r in c.arrive(data)])
    return result


def _let(c: Card, *to: bytes, wanted: Sequence[bool]) -> None:
    found = _passes(c, *to)
    told = ", ".join(f"{a.hex(':')}: {'' if ok else 'not '}passed" for a, ok in zip(to, found, strict=True))
    assert found == list(wanted), f"wanted {list(wanted)}: {told}"


def _switch(bench: Bench, *modes: tuple[int, int]) -> Card:
    """A card on which these receive modes were switched on, in this order, out of promiscuous mode."""
    extra = any(number > 1 for _, number in modes)
    c = card(bench, want=bits.CTRL_RX | (bits.CTRL_RX_EXTRA if extra else 0))
    c.must(*PROMISC, OFF)
    for mode in modes:
        c.must(*mode, ON)
    return c


def _table(unicast: Sequence[bytes], multicast: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(macs)) + b"".join(macs) for macs in (unicast, multicast))


def _acknowledged(bench: Bench, want: int, *modes: tuple[int, int]) -> None:
    c = card(bench, want=want)
    for mode in modes:
        for value in (ON, OFF):
            ack, _ = c.command(*mode, value)
            assert ack == ACK_OK, f"command {mode[0]}.{mode[1]} with {value[0]} is acknowledged with {ack}"


@rule("net.ctrl.rx.promisc.cmd", kinds=NET, needs=RX)
def promiscuous_mode_is_a_command(bench: Bench) -> None:
    _acknowledged(bench, bits.CTRL_RX, PROMISC)


@rule("net.ctrl.rx.allmulti.cmd", kinds=NET, needs=RX)
def all_multicast_is_a_command(bench: Bench) -> None:
    _acknowledged(bench, bits.CTRL_RX, ALLMULTI)


@rule("net.ctrl.rx.extra.cmds", kinds=NET, needs=("CTRL_RX_EXTRA",))
def extra_modes_are_commands(bench: Bench) -> None:
    _acknowledged(bench, bits.CTRL_RX_EXTRA, ALLUNI, NOMULTI, NOUNI, NOBCAST)


@rule("net.ctrl.rx.promisc.all", kinds=NET, needs=RX)
def promiscuous_card_takes_everything(bench: Bench) -> None:
    c = _switch(bench, PROMISC)
    _let(c, FOREIGN, GROUP, BROADCAST, c.mac, wanted=[True] * 4)


@rule("net.ctrl.rx.promisc.overrides", kinds=NET, needs=RX_EXTRA)
def promiscuous_mode_overrides_the_others(bench: Bench) -> None:
    c = _switch(bench, NOUNI, NOMULTI, NOBCAST, PROMISC)
    _let(c, FOREIGN, GROUP, BROADCAST, c.mac, wanted=[True] * 4)


@rule("net.ctrl.rx.allmulti.all", kinds=NET, needs=RX)
def all_multicast_takes_every_group(bench: Bench) -> None:
    c = _switch(bench, ALLMULTI)
    _let(c, GROUP, OTHER_GROUP, wanted=[True, True])


@rule("net.ctrl.rx.alluni", kinds=NET, needs=RX_EXTRA)
def all_unicast_takes_every_station(bench: Bench) -> None:
    c = _switch(bench, ALLUNI)
    _let(c, FOREIGN, c.mac, wanted=[True, True])


@rule("net.ctrl.rx.nomulti", kinds=NET, needs=RX_EXTRA)
def no_multicast_takes_no_group(bench: Bench) -> None:
    c = _switch(bench, NOMULTI)
    c.must(*MAC_TABLE_SET, _table([], [GROUP]))
    _let(c, GROUP, c.mac, wanted=[False, True])


@rule("net.ctrl.rx.nomulti.over", kinds=NET, needs=RX_EXTRA)
def no_multicast_overrides_all_multicast(bench: Bench) -> None:
    for modes in ((ALLMULTI, NOMULTI), (NOMULTI, ALLMULTI)):
        _let(_switch(bench, *modes), GROUP, wanted=[False])


@rule("net.ctrl.rx.nomulti.bcast", kinds=NET, needs=RX_EXTRA)
def no_multicast_spares_broadcasts(bench: Bench) -> None:
    _let(_switch(bench, NOMULTI), BROADCAST, wanted=[True])


@rule("net.ctrl.rx.nouni", kinds=NET, needs=RX_EXTRA)
def no_unicast_takes_no_station(bench: Bench) -> None:
    c = _switch(bench, NOUNI)
    _let(c, c.mac, BROADCAST, wanted=[False, True])


@rule("net.ctrl.rx.nouni.over", kinds=NET, needs=RX_EXTRA)
def no_unicast_overrides_all_unicast(bench: Bench) -> None:
    for modes in ((ALLUNI, NOUNI), (NOUNI, ALLUNI)):
        c = _switch(bench, *modes)
        _let(c, c.mac, FOREIGN, wanted=[False, False])


@rule("net.ctrl.rx.nobcast", kinds=NET, needs=RX_EXTRA)
def no_broadcast_takes_none(bench: Bench) -> None:
    c = _switch(bench, NOBCAST)
    _let(c, BROADCAST, c.mac, wanted=[False, True])


@rule("net.ctrl.rx.nobcast.over", kinds=NET, needs=RX_EXTRA)
def no_broadcast_overrides_all_multicast(bench: Bench) -> None:
    for modes in ((ALLMULTI, NOBCAST), (NOBCAST, ALLMULTI)):
        _let(_switch(bench, *modes), BROADCAST, GROUP, wanted=[False, True])


@rule("net.ctrl.mac.empty_on_reset", kinds=NET, needs=RX)
def reset_empties_the_address_table(bench: Bench) -> None:
    c = _switch(bench)
    c.must(*MAC_TABLE_SET, _table([FOREIGN], [GROUP]))
    _let(c, FOREIGN, GROUP, wanted=[True, True])
    _let(_switch(bench), FOREIGN, GROUP, wanted=[False, False])


@rule("net.ctrl.mac.table_before_used", kinds=NET, needs=RX)
def address_table_counts_when_its_command_is_used(bench: Bench) -> None:
    c = _switch(bench)
    for listed in (True, False):
        c.must(*MAC_TABLE_SET, _table([FOREIGN] if listed else [], []))
        assert _passes(c, FOREIGN) == [listed], f"the table is not in effect when its command is used ({listed=})"


@rule("d.net.ctrl.mac_two_tables", kinds=NET, needs=RX)
def address_table_has_two_parts(bench: Bench) -> None:
    c = _switch(bench)
    for unicast, multicast in (([FOREIGN], []), ([], [GROUP]), ([FOREIGN], [GROUP]), ([], [])):
        c.must(*MAC_TABLE_SET, _table(unicast, multicast))
        _let(c, FOREIGN, GROUP, c.mac, wanted=[bool(unicast), bool(multicast), True])
    ack, _ = c.command(*MAC_TABLE_SET, _table([FOREIGN], [])[:-1])
    assert ack != ACK_OK, "a table that ends too early is accepted"


@rule("net.ctrl.vlan.not_negotiated", kinds=NET, over=("transport",))
def tagged_frames_pass_without_the_filter(bench: Bench) -> None:
    c = card(bench, without=bits.CTRL_VLAN)
    c.post_enough()
    for vlan in (0, 1, 7, 4095):
        data = frame(b"tagged", vlan=vlan)
        assert [r.data for r in c.arrive(data)] == [data], f"a frame of VLAN {vlan} is dropped"


def _vlans(c: Card, *vlans: int | None) -> list[bool]:
    """Whether a frame of each of these VLANs, None for one without a tag, gets to the driver."""
    c.post_enough()
    frames = [frame(bytes([number]), vlan=vlan) for number, vlan in enumerate(vlans)]
    return [data in [r.data for r in c.arrive(data)] for data in frames]


def _let_vlans(c: Card, *vlans: int | None, wanted: Sequence[bool]) -> None:
    found = _vlans(c, *vlans)
    assert found == list(wanted), f"frames of the VLANs {vlans} are passed: {found}, wanted {list(wanted)}"


@rule("net.ctrl.vlan.accept", kinds=NET, needs=("CTRL_VLAN",))
def tagged_frames_of_the_filter_pass(bench: Bench) -> None:
    c = card(bench, want=bits.CTRL_VLAN)
    for vlan in (1, 7, 4094):
        c.must(*VLAN_ADD, struct.pack("<H", vlan))
    _let_vlans(c, 1, 7, 4094, wanted=[True] * 3)


@rule("net.ctrl.vlan.drop", kinds=NET, needs=("CTRL_VLAN",))
def tagged_frames_of_no_filter_do_not_pass(bench: Bench) -> None:
    c = card(bench, want=bits.CTRL_VLAN)
    c.must(*VLAN_ADD, struct.pack("<H", 7))
    _let_vlans(c, 8, 7, wanted=[False, True])
    c.must(*VLAN_DEL, struct.pack("<H", 7))
    _let_vlans(c, 7, wanted=[False])


@rule("d.net.ctrl.vlan_empty", kinds=NET, needs=("CTRL_VLAN",))
def vlan_filter_begins_empty(bench: Bench) -> None:
    c = card(bench, want=bits.CTRL_VLAN)
    _let_vlans(c, 7, None, wanted=[False, True])
    c.must(*VLAN_ADD, struct.pack("<H", 7))
    _let_vlans(card(bench, want=bits.CTRL_VLAN), 7, None, wanted=[False, True])


@rule("net.ctrl.mac.drop", kinds=NET)
def foreign_addresses_are_dropped(bench: Bench) -> None:
    c = _switch(bench) if bench.offers("CTRL_RX") else card(bench)
    _let(c, c.mac, BROADCAST, wanted=[True, True])
    _let(c, FOREIGN, wanted=[False])
