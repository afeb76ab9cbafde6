"""Rules of network cards: the built-in one keeps them all, and each is broken by a card that breaks it."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from acrn_dm.devices.virtio_net import control, receive, request, transmit
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.devices.virtio_net.pair import Pair
from acrn_dm.devices.virtio_net.receive import Receiver
from acrn_dm.devices.virtio_net.transmit import Transmitter
from acrn_dm.testing.conformance import conform, kinds
from acrn_dm.testing.conformance.kinds.net import packets
from acrn_dm.testing.conformance.outside import tap
from acrn_dm.testing.conformance.outside.tap import TapNetwork
from tests.testing.conformance.kinds.filter_card import FilterNetwork
from tests.testing.conformance.kinds.judging import judged

Patch = Callable[[pytest.MonkeyPatch], None]

WORLDS: dict[str, Callable[[], TapNetwork | FilterNetwork]] = {
    "three pairs": lambda: TapNetwork("tap=t0,mq=3"),
    "filters": FilterNetwork,
    "one pair": TapNetwork,
    "no packet headers": lambda: TapNetwork(headers=False),
}


@pytest.mark.stress
@pytest.mark.parametrize("name", WORLDS)
def test_card_keeps_every_rule(name: str) -> None:
    network = WORLDS[name]()
    report = conform(network.build, outside=network, rules=kinds.RULES)
    assert report.failed == [], report.text()


FILTER_FAULTS = {
    "net.cfg.mtu.constant": "writable mtu",
    "net.cfg.mtu.rx_limit": "no mtu",
    "net.cfg.mtu.tx_forward": "short mtu",
    "net.cfg.speed_stable_up": "writable speed",
    "d.net.cfg.status": "silent link",
    "d.net.cfg.mac": "no address",
    "d.net.legacy.mac_rw": "fixed address",
    "net.legacy.mac_defer_update": "fixed address",
    "net.ctrl.mac.addr_before_used": "keeps the address",
    "net.announce.ack_clears": "announces for ever",
    "net.ctrl.vlan.not_negotiated": "drops tags",
    "net.ctrl.vlan.accept": "drops tags",
    "net.ctrl.vlan.drop": "no VLAN filter",
    "d.net.ctrl.vlan_empty": "VLANs at first",
    "net.ctrl.rx.promisc.cmd": "refuses everything",
    "net.ctrl.rx.allmulti.cmd": "refuses everything",
    "net.ctrl.rx.extra.cmds": "refuses everything",
    "net.ctrl.rx.promisc.all": "not promiscuous",
    "net.ctrl.rx.promisc.overrides": "not promiscuous",
    "net.ctrl.rx.allmulti.all": "allmulti",
    "net.ctrl.rx.alluni": "alluni",
    "net.ctrl.rx.nomulti": "nomulti",
    "net.ctrl.rx.nomulti.over": "allmulti first",
    "net.ctrl.rx.nouni": "nouni",
    "net.ctrl.rx.nouni.over": "alluni first",
    "net.ctrl.rx.nobcast": "broadcasts",
    "net.ctrl.rx.nobcast.over": "nobcast",
    "net.ctrl.mac.empty_on_reset": "keeps the table",
    "net.ctrl.mac.table_before_used": "late table",
    "d.net.ctrl.mac_two_tables": "half tables",
    "net.ctrl.mac.drop": "all stations",
}


@pytest.mark.stress
@pytest.mark.parametrize("row", FILTER_FAULTS)
def test_card_with_filters_that_breaks_a_rule_fails_its_row(row: str) -> None:
    network = FilterNetwork(FILTER_FAULTS[row])
    assert judged(network.build, row, outside=network).failures


def test_rule_that_no_multicast_spares_broadcasts_sees_a_card_that_drops_them() -> None:
    network = FilterNetwork("nomulti is for broadcasts")
    assert judged(network.build, "net.ctrl.rx.nomulti.bcast", outside=network).failures


def _tampering(change: Callable[[memoryview], None]) -> Patch:
    """Each frame is changed on its way from the tap."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        deliver = Receiver._deliver

        def tampered(self: Receiver) -> bool:
            change(self._buffer)
            return deliver(self)

        monkeypatch.setattr(Receiver, "_deliver", tampered)

    return patch


def _put(at: int, value: int) -> Callable[[memoryview], None]:
    def change(buffer: memoryview) -> None:
        buffer[at] = value

    return change


def _flags(judge: Callable[[Any, int], int | None]) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(receive, "receive_flags", judge)


def _everything_passes(header: Any, features: int) -> int:
    return int(header[0])


def _transmit(judge: Callable[[bytes, int, int], bytes | None]) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(transmit, "transmit_header", judge)


def _strict_flags(header: bytes, size: int, features: int) -> bytes | None:
    return None if header[0] & ~3 else request.transmit_header(header, size, features)


def _uses_fields(header: bytes, size: int, features: int) -> bytes | None:
    start, offset = struct.unpack_from("<HH", header, 6)
    return None if start + offset + 2 > size else request.transmit_header(header, size, features)


def _relies_on_hdr_len(header: bytes, size: int, features: int) -> bytes | None:
    length = int.from_bytes(header[2:4], "little")
    return None if header[1] and not 54 <= length <= size else request.transmit_header(header, size, features)


def _drops_wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Transmitter._send

    def careful(self: Transmitter, chain: Any, header: bytes) -> bool:
        data = b"".join(chain.readable(self._header))
        if data[12:14] == b"\x08\x00" and not packets.transport_sum_is_right(data):
            return True
        return send(self, chain, header)

    monkeypatch.setattr(Transmitter, "_send", careful)


def _whole_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Transmitter._send

    def strict(self: Transmitter, chain: Any, header: bytes) -> bool:
        return len(chain.readable(0)[0]) < self._header or send(self, chain, header)

    monkeypatch.setattr(Transmitter, "_send", strict)


def _short_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (receive, transmit):
        monkeypatch.setattr(module, "header_bytes", lambda features: 10)


def _long_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (receive, transmit):
        monkeypatch.setattr(module, "header_bytes", lambda features: 12)


class _WrongCount:
    @staticmethod
    def pack_into(buffer: Any, at: int, count: int) -> None:
        struct.pack_into("<H", buffer, at, count + 1 if count > 1 else 0)


def _wrong_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "U16", _WrongCount)


def _two_buffers(self: Receiver) -> bool:
    size, self._waiting = self._waiting, 0
    self._buffer[10:12] = b"\1\0"
    for part in (self._buffer[: size // 2], self._buffer[size // 2 : size]):
        (chain,) = self.queue.pop_batch(1)
        chain.write(part)
        self.queue.push(chain)
    return True


def _half_full(self: Receiver) -> bool:
    size, self._waiting = self._waiting, 0
    parts = [self._buffer[at : min(at + 200, size)] for at in range(0, size, 200)]
    struct.pack_into("<H", self._buffer, 10, len(parts))
    for part in parts:
        (chain,) = self.queue.pop_batch(1)
        chain.write(part)
        self.queue.push(chain)
    return True


def _early(self: Receiver) -> bool:
    self._buffer[10:12] = b"\4\0"
    done = 0
    for chain in self.queue.pop_batch(8):
        done += chain.write(self._buffer[done : self._waiting])
        self.queue.push(chain)
        if done == self._waiting:
            break
    self._waiting = 0
    return True


def _header_each(self: Receiver) -> bool:
    size, self._waiting = self._waiting, 0
    frame, header = bytes(self._buffer[12:size]), bytearray(self._buffer[:12])
    parts = [frame[at : at + 244] for at in range(0, len(frame), 244)]
    struct.pack_into("<H", header, 10, len(parts))
    for part in parts:
        (chain,) = self.queue.pop_batch(1)
        chain.write(bytes(header) + part)
        self.queue.push(chain)
    return True


def _delivers(how: Callable[[Receiver], bool]) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(Receiver, "_deliver", how)


def _method(name: str, make: Callable[[Any], Any]) -> Patch:
    """A method of the card is made of the one that was there."""
    return lambda monkeypatch: monkeypatch.setattr(NetDevice, name, make(getattr(NetDevice, name)))


def _before(step: Callable[[NetDevice], None]) -> Callable[[Any], Any]:
    def make(was: Any) -> Any:
        def method(self: NetDevice, *args: Any, **kwargs: Any) -> Any:
            step(self)
            return was(self, *args, **kwargs)

        return method

    return make


def _all_pairs(card: NetDevice) -> None:
    card._pairs_used = card.config.mq


def _no_offloads(card: NetDevice) -> None:
    card._offloads = 0


def _ignores_one(was: Any) -> Any:
    def set_pairs(self: NetDevice, pairs: int, done: Any) -> None:
        if pairs == 1:
            done(True)
        else:
            was(self, pairs, done)

    return set_pairs


def _ignores_all(was: Any) -> Any:
    def set_pairs(self: NetDevice, pairs: int, done: Any) -> None:
        done(True)

    return set_pairs


def _any_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control queue knows no limit, and the card uses the pairs that there are."""
    was = NetDevice._set_pairs
    made = control.Control.__init__

    def init(self: Any, queue: Any, features: int, most: int, *rest: Any) -> None:
        made(self, queue, features, 0xFFFF, *rest)

    monkeypatch.setattr(control.Control, "__init__", init)
    monkeypatch.setattr(NetDevice, "_set_pairs", lambda self, pairs, done: was(self, min(pairs, 3), done))


def _crossed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pair sends leaves by another one's queue of the tap."""
    start = Pair.start
    taps: list[Any] = []

    def crossed(self: Pair, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        taps.append(self.tap)
        if self.tx is not None:
            self.tx.tap = taps[0]

    monkeypatch.setattr(Pair, "start", crossed)


def _wandering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of one flow arrive on one queue after another."""
    count = iter(range(1 << 20))
    monkeypatch.setattr(tap, "_addresses", lambda *args, **options: bytes([next(count) % 251]))


def _one_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands need a descriptor for their header, as old drivers made it."""
    parse = control.parse

    def framed(chain: Any) -> Any:
        return parse(chain) if len(next(iter(chain.readable(0)))) == 2 else None

    monkeypatch.setattr(control, "parse", framed)


PRODUCT_FAULTS: dict[str, Patch] = {
    "dm.net.framing": _whole_headers,
    "d.net.hdr.size": _short_headers,
    "d.net.hdr.legacy10": _long_headers,
    "net.tx.ignore_unknown_flags": _transmit(_strict_flags),
    "net.tx.no_csum_fields": _transmit(_uses_fields),
    "net.tx.csum_no_rely": _drops_wrong_sums,
    "net.tx.hdr_len.no_rely": _transmit(_relies_on_hdr_len),
    "net.rx.num_buffers": _wrong_counts,
    "net.rx.num_buffers_1": _wrong_counts,
    "net.rx.mrg.num_buffers": _wrong_counts,
    "net.rx.single_buffer": _delivers(_two_buffers),
    "net.rx.mrg.fill": _delivers(_half_full),
    "net.rx.mrg.together": _delivers(_early),
    "d.net.rx.mrg_hdr_first": _delivers(_header_each),
    "net.rx.flags_zero": _flags(lambda header, features: 2),
    "net.rx.rsc.absent": _flags(lambda header, features: 4),
    "net.rx.no_tunnel_csum": _flags(lambda header, features: 8),
    "net.rx.data_valid.validated": _flags(lambda header, features: 2),
    "net.rx.full_csum": _flags(lambda header, features: 0),
    "net.rx.needs_csum.pseudo": _tampering(_put(12 + 14 + 40 + 6, 0x77)),
    "net.rx.needs_csum.fields": _tampering(_put(6, 35)),
    "net.rx.hdr_len": _tampering(_put(2, 20)),
    "net.rx.ecn.mark": _tampering(_put(1, 1)),
    "d.net.offloads.initial": _method("start", _before(_no_offloads)),
    "d.net.offloads.mask": _method("_set_offloads", lambda was: lambda self, offloads: True),
    "d.net.cfg.ro": _method("write_config", lambda was: NetDevice.write_legacy_config),
    "d.net.vq.index": _method("_pairs", lambda was: lambda self, features: self.config.mq),
    "d.net.ctrl.format": _one_layout,
    "net.mq.default_q1": _method("start", _before(_all_pairs)),
    "d.net.mq.default": _method("_set_pairs", _ignores_one),
    "net.mq.limit": _any_count,
    "net.mq.auto": _wandering,
    "net.mq.auto.follow_tx": _crossed,
    **dict.fromkeys(
        (
            *("net.rx.no_tcpv4", "net.rx.no_tcpv6", "net.rx.no_udp", "net.rx.no_udp_l4", "net.rx.gso_none"),
            *("net.rx.tunnel.forbid", "net.rx.tunnel.csum_forbid"),
            *("net.rx.no_tunnel_bits", "net.rx.ecn.avoid", "net.rx.gso.needs_csum", "net.rx.gso.size"),
        ),
        _flags(_everything_passes),
    ),
}


@pytest.mark.stress
@pytest.mark.parametrize("row", PRODUCT_FAULTS)
def test_card_that_breaks_a_rule_fails_its_row(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = TapNetwork("tap=t0,mq=3")
    PRODUCT_FAULTS[row](monkeypatch)
    assert judged(network.build, row, outside=network).failures
