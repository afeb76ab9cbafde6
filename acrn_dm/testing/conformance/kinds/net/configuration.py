"""Rules of a card's offer and configuration space (virtio 5.1.2 to 5.1.4)."""

import contextlib

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import Requires, pruned
from acrn_dm.testing.conformance.kinds.net import bits
from acrn_dm.testing.conformance.kinds.net.card import (
    DUPLEX_AT,
    LINK_UP,
    MAX_PAIRS_AT,
    MTU_AT,
    SPEED_AT,
    STATUS_AT,
    Card,
    card,
)
from acrn_dm.testing.conformance.rule import NotApplicable, rule

NET = ("net",)
RSS_KEY_AT, RSS_TABLE_AT = 17, 18
CONFIG_END = {bits.STATUS: 8, bits.MQ: 10, bits.MTU: 12, bits.SPEED_DUPLEX: 17, bits.RSS: 24}


def _u16(bench: Bench, at: int) -> int:
    return int.from_bytes(bench.driver().read_config(at, 2), "little")


def _dependencies(bench: Bench, requires: Requires) -> None:
    """Each feature of *requires* is offered with what it requires, and refused from a driver that leaves that out."""
    offered = bench.offered
    about = {bit: masks for bit, masks in requires.items() if offered >> bit & 1}
    if not about:
        raise NotApplicable("none of these features is offered")
    driver = bench.driver()
    for bit, masks in about.items():
        for mask in masks:
            assert offered & mask, f"offers bit {bit} without any of {mask:#x}, which it requires"
            wrong = pruned(offered & ~mask, {b: m for b, m in bits.REQUIRES.items() if b != bit}) | 1 << bit
            assert not driver.negotiate(wrong & ~mask), f"accepts bit {bit} without any of {mask:#x}"
            assert driver.negotiate(pruned(offered, bits.REQUIRES)), f"refuses bit {bit} with what it requires"


@rule("d.net.dep.guest", kinds=NET, transport="modern")
def guest_segmentation_requires_guest_checksums(bench: Bench) -> None:
    _dependencies(bench, bits.GUEST_SUMS)


@rule("d.net.dep.guest_ecn", kinds=NET, transport="modern")
def guest_ecn_requires_guest_segmentation(bench: Bench) -> None:
    _dependencies(bench, bits.GUEST_ECN_NEEDS)


@rule("d.net.dep.guest_tunnel", kinds=NET, transport="modern")
def guest_tunnels_require_all_guest_segmentation(bench: Bench) -> None:
    _dependencies(bench, bits.GUEST_TUNNELS)


@rule("d.net.dep.host", kinds=NET, transport="modern")
def host_segmentation_requires_host_checksums(bench: Bench) -> None:
    _dependencies(bench, bits.HOST_SUMS)


@rule("d.net.dep.host_ecn", kinds=NET, transport="modern")
def host_ecn_requires_host_segmentation(bench: Bench) -> None:
    _dependencies(bench, bits.HOST_ECN_NEEDS)


@rule("d.net.dep.host_tunnel", kinds=NET, transport="modern")
def host_tunnels_require_all_host_segmentation(bench: Bench) -> None:
    _dependencies(bench, bits.HOST_TUNNELS)


@rule("d.net.dep.cvq", kinds=NET, transport="modern")
def commands_require_the_control_queue(bench: Bench) -> None:
    _dependencies(bench, bits.COMMANDS)


@rule("d.net.dep.rsc", kinds=NET, transport="modern")
def coalescing_information_requires_host_segmentation(bench: Bench) -> None:
    _dependencies(bench, bits.COALESCED_SEGMENTS)


@rule("d.net.dep.hash_tunnel", kinds=NET, transport="modern")
def inner_hashes_and_contexts_require_hashing(bench: Bench) -> None:
    _dependencies(bench, bits.HASHES)


@rule("net.feat.ipsec_out_net_header", kinds=NET, needs=("IPSEC",))
def ipsec_comes_with_the_outer_header(bench: Bench) -> None:
    assert bench.offered & bits.OUT_NET_HEADER, "offers IPSEC without OUT_NET_HEADER"


@rule("net.feat.hash_report_needs_cvq", kinds=NET, needs=("HASH_REPORT",))
def hash_reports_come_with_the_control_queue(bench: Bench) -> None:
    assert bench.offered & bits.CTRL_VQ, "offers HASH_REPORT without CTRL_VQ"


@rule("net.feat.rx_extra_needs_cvq", kinds=NET, needs=("CTRL_RX_EXTRA",))
def extra_receive_modes_come_with_the_control_queue(bench: Bench) -> None:
    assert bench.offered & bits.CTRL_VQ, "offers CTRL_RX_EXTRA without CTRL_VQ"


@rule("net.cfg.max_vq_pairs", kinds=NET, needs=("MQ",))
def number_of_pairs_is_in_range(bench: Bench) -> None:
    assert 1 <= _u16(bench, MAX_PAIRS_AT) <= 0x8000, f"max_virtqueue_pairs is {_u16(bench, MAX_PAIRS_AT)}"


@rule("net.cfg.mtu.range", kinds=NET, needs=("MTU",))
def mtu_is_in_range(bench: Bench) -> None:
    assert 68 <= _u16(bench, MTU_AT) <= 65535, f"mtu is {_u16(bench, MTU_AT)}"


@rule("net.cfg.mtu.min1280", kinds=NET, needs=("MTU",))
def mtu_is_enough_for_ipv6(bench: Bench) -> None:
    assert _u16(bench, MTU_AT) >= 1280, f"mtu is {_u16(bench, MTU_AT)}"


@rule("net.cfg.mtu.constant", kinds=NET, needs=("MTU",))
def mtu_does_not_change(bench: Bench) -> None:
    c = card(bench, want=bits.MTU)
    before = c.driver.read_config(MTU_AT, 2)
    for at, byte in enumerate(b"\x55\x0a", MTU_AT):
        c.driver.registers.write_config(at, 1, byte)
    assert c.driver.read_config(MTU_AT, 2) == before, "mtu changes while the driver runs"
    c.driver.reset()
    assert c.driver.read_config(MTU_AT, 2) == before, "mtu changes by a reset"


@rule("net.cfg.rss_max_key_size", kinds=NET)
def hash_key_has_room_for_40_bytes(bench: Bench) -> None:
    if not bench.offered & (bits.RSS | bits.HASH_REPORT):
        raise NotApplicable("not offered: RSS, HASH_REPORT")
    size = bench.driver().read_config(RSS_KEY_AT, 1)[0]
    assert size >= 40, f"rss_max_key_size is {size}"


@rule("net.cfg.rss_max_indir", kinds=NET, needs=("RSS",))
def indirection_table_has_room_for_128_entries(bench: Bench) -> None:
    assert _u16(bench, RSS_TABLE_AT) >= 128, f"rss_max_indirection_table_length is {_u16(bench, RSS_TABLE_AT)}"


@rule("net.cfg.speed", kinds=NET, needs=("SPEED_DUPLEX",))
def speed_is_known_or_unknown(bench: Bench) -> None:
    speed = int.from_bytes(bench.driver().read_config(SPEED_AT, 4), "little")
    assert speed <= 0x7FFF_FFFF or speed == 0xFFFF_FFFF, f"speed is {speed:#x}"


@rule("net.cfg.duplex", kinds=NET, needs=("SPEED_DUPLEX",))
def duplex_is_known_or_unknown(bench: Bench) -> None:
    duplex = bench.driver().read_config(DUPLEX_AT, 1)[0]
    assert duplex in (0, 1, 0xFF), f"duplex is {duplex:#x}"


@rule(
    "net.cfg.speed_stable_up",
    kinds=NET,
    needs=(
        "SPEED_DUPLEX",
        "STATUS",
    ),
)
def speed_stands_while_the_link_is_up(bench: Bench) -> None:
    c = card(bench, want=bits.SPEED_DUPLEX | bits.STATUS)
    if not c.driver.read_config(STATUS_AT, 1)[0] & LINK_UP:
        raise NotApplicable("the link is down")
    before = c.driver.read_config(SPEED_AT, 5)
    for at in range(SPEED_AT, SPEED_AT + 5):
        c.driver.registers.write_config(at, 1, 0x2A)
    c.send(bytes(60))
    assert c.driver.read_config(SPEED_AT, 5) == before, "speed or duplex changes while the link is up"


@rule("d.net.vq.index", kinds=NET, needs=("CTRL_VQ",))
def control_queue_follows_the_pairs_that_were_negotiated(bench: Bench) -> None:
    for without in (0, bits.MQ | bits.RSS | bits.HASH_REPORT):
        c = card(bench, want=bits.CTRL_VQ, without=without)
        queue = c.driver.queue(2 * c.pairs)
        done = queue.transfer([bytes((0xFE, 0xFE))], [1])  # a command that nobody has is answered, too
        assert done.data[0] in (0, 1), f"queue {queue.index} does not acknowledge commands"


@rule("d.net.cfg.mac", kinds=NET, needs=("MAC",))
def address_is_a_stations(bench: Bench) -> None:
    mac = bench.driver().read_config(0, 6)
    assert any(mac), "mac is all zero"
    assert not mac[0] & 1, f"mac {mac.hex(':')} is a multicast address"


@rule("d.net.cfg.status", kinds=NET, needs=("STATUS",))
def change_of_the_link_is_told(bench: Bench) -> None:
    c = card(bench, want=bits.STATUS)
    assert c.driver.read_config(STATUS_AT, 2)[0] & LINK_UP, "the link is not up"
    _change_link(bench, c, up=False)
    with contextlib.suppress(NotApplicable):  # some networks can only be taken away
        _change_link(bench, c, up=True)


def _change_link(bench: Bench, c: Card, *, up: bool) -> None:
    before = c.driver.config_interrupts
    c.network.set_link(up)
    bench.machine.settle()
    told = bool(c.driver.read_config(STATUS_AT, 2)[0] & LINK_UP)
    assert told == up, f"status says that the link is {'up' if told else 'down'}"
    assert c.driver.config_interrupts > before, "no configuration change notification"


@rule("d.net.cfg.ro", kinds=NET, transport="modern")
def configuration_is_read_only(bench: Bench) -> None:
    c = card(bench)
    end = max((end for feature, end in CONFIG_END.items() if bench.offered & feature), default=6)
    before = c.driver.read_config(0, end)
    for size in (1, 2, 4):
        for at in range(0, end - size + 1, size):
            c.driver.registers.write_config(at, size, 0x6666_6666 & (1 << 8 * size) - 1)
    assert c.driver.read_config(0, end) == before, "a modern driver's writes change the configuration"


@rule("d.net.legacy.mac_rw", kinds=NET, transport="legacy")
def legacy_driver_writes_the_address(bench: Bench) -> None:
    c = card(bench, without=bits.CTRL_MAC_ADDR)
    mac = bytes.fromhex("021122334455")
    _write_mac(c, mac)
    assert c.mac == mac, f"mac reads {c.mac.hex(':')} after {mac.hex(':')} was written"


@rule("net.legacy.mac_defer_update", kinds=NET, transport="legacy")
def legacy_address_is_in_effect_when_its_last_byte_is_written(bench: Bench) -> None:
    c = card(bench, without=bits.CTRL_MAC_ADDR)
    for number in range(2):
        mac = bytes((2, number, 3, 4, 5, 6))
        _write_mac(c, mac)
        assert c.mac == mac, "the address is not what was written, although its last byte was"


def _write_mac(c: Card, mac: bytes) -> None:
    for at, byte in enumerate(mac):
        c.driver.registers.write_config(at, 1, byte)
