"""Cards that are wrong (virtio 5.1)."""

import struct
from collections.abc import Collection, Sequence
from typing import Any

from acrn_dm import Chain, Queue
from acrn_dm.devices.virtio_net.device import NetDevice
from tests.testing.conformance.mutants.own_ring import OwnRing, on_rings
from tests.testing.conformance.mutants.registry import breaks

GUEST_CSUM, GUEST_TSO4, MQ = 1 << 1, 1 << 7, 1 << 22


class _Card(NetDevice):
    """A right card, on rings of ``ring_class`` if there is one."""

    ring_class: type[OwnRing] | None = None

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.function: Any = self.transport

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if self.ring_class is not None:
            on_rings(self.ring_class, self, features, queues)
        super().start(features, queues)


@breaks("feat.offer_deps", "d.net.dep.guest", how="net")
class OffersSegmentsWithoutChecksums(_Card):
    """Offers GUEST_TSO4 without GUEST_CSUM."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.function.data_plane.backend.offer = lambda offered: offered & ~GUEST_CSUM


@breaks("feat.reject_bad_subset", "d.net.dep.guest", "d.net.dep.host", how="net")
class AcceptsSegmentsWithoutChecksums(_Card):
    """Sets FEATURES_OK for whatever it offered, prerequisites or not."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        core = self.function.core
        core._features_ok = lambda: not core.driver_features & ~core.offered


@breaks("d.net.cfg.ro", how="net")
class LetsTheDriverChangeItsAddress(_Card):
    """Takes an address that a modern driver writes."""

    def write_config(self, offset: int, data: bytes) -> None:
        self.write_legacy_config(offset, data)


@breaks("net.cfg.max_vq_pairs", "d.cfg.le", "d.net.vq.index", how="net pairs")
class SaysItsPairsBackwards(_Card):
    """Shows the number of pairs in the other byte order."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, 10)
        return (space[:8] + space[:7:-1])[offset : offset + size]


@breaks("d.net.cfg.status", how="net")
class IsNeverPluggedIn(_Card):
    """Shows a link that is down while frames come and go."""

    def read_config(self, offset: int, size: int) -> bytes:
        return (super().read_config(0, 6) + bytes(2))[offset : offset + size]


@breaks("d.net.cfg.mac", how="net")
class HasAMulticastAddress(_Card):
    """Shows a multicast address as its own."""

    def read_config(self, offset: int, size: int) -> bytes:
        return (b"\x01" + super().read_config(1, self.config_size - 1))[offset : offset + size]


class _NoNumber(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        if chain.written >= 12:
            chain.write_at(10, bytes(2))
        self.real.push(chain, written)


@breaks("net.rx.num_buffers_1", "net.rx.num_buffers", "net.rx.mrg.num_buffers", how="net")
class CountsNoBuffers(_Card):
    """Leaves num_buffers at 0."""

    ring_class = _NoNumber


class _TxLength(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        at = self.element_at(self.real.used_idx)
        length = chain.readable_bytes if self.index == 1 else None
        self.real.push(chain, written)
        if length is not None:
            self.poke(at + 4, length, 4)


@breaks("split.used.len_bytes_written", "d.vq.used_len", how="net")
class SaysHowMuchItSent(_Card):
    """Returns transmitted frames with their length, instead of 0."""

    ring_class = _TxLength


class _Flags(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        if chain.written >= 12:
            chain.write_at(0, b"\x02")
        self.real.push(chain, written)


@breaks("net.rx.flags_zero", how="net")
class VouchesForChecksumsUnasked(_Card):
    """Sets DATA_VALID, whatever was negotiated."""

    ring_class = _Flags


class _Segments(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        if chain.written >= 12:
            chain.write_at(1, b"\x01")
        self.real.push(chain, written)


@breaks("net.rx.gso_none", "net.rx.no_tcpv4", "net.rx.gso.needs_csum", how="net")
class CallsEveryFrameASegment(_Card):
    """Sets gso_type to TCPv4, whatever was negotiated."""

    ring_class = _Segments


@breaks("d.net.mq.default", "net.mq.default_q1", how="net pairs")
class UsesAllPairsAtOnce(_Card):
    """Uses all pairs from the start, not only the first."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self._pairs_used = self.config.mq
        super().start(features, queues)


@breaks("net.mq.limit", how="net pairs")
class SwitchesNoPairOff(_Card):
    """Acknowledges a smaller number of pairs, and goes on with all."""

    def _set_pairs(self, pairs: int, done: Any) -> None:
        super()._set_pairs(max(pairs, self._pairs_used), done)


@breaks("d.net.mq.default", "net.mq.default_q1", how="net pairs")
class KeepsThePairsOfTheLastDriver(_Card):
    """Begins with as many pairs as the last driver had chosen."""

    def reset(self) -> None:
        pairs = self._pairs_used
        super().reset()
        self._pairs_used = pairs


@breaks("d.net.vq.index", how="net pairs")
class HasItsControlQueueLast(_Card):
    """Looks for commands in the last queue, also under a driver without MQ."""

    def _pairs(self, features: int) -> int:
        return self.config.mq

    def local_queues(self, features: int) -> Collection[int]:
        return (2 * self.config.mq,)


@breaks("d.net.offloads.mask", "net.rx.no_tcpv4", "net.rx.gso_none", how="net pairs")
class IgnoresTheOffloadsChosen(_Card):
    """Acknowledges a choice of offloads and goes on with what was negotiated."""

    def _set_offloads(self, offloads: int) -> bool:
        return True


class _AllOk(OwnRing):
    def push(self, chain: Chain, written: int | None = None) -> None:
        if self.index == 4 and chain.written == 1:
            chain.write_at(0, b"\0")
        self.real.push(chain, written)


@breaks("d.net.ctrl.format", how="net pairs")
class AcknowledgesEverything(_Card):
    """Acknowledges commands that nobody knows."""

    ring_class = _AllOk


class _OneDescriptor(OwnRing):
    """Sees chains of two descriptors only: others are returned as they are."""

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        chains = []
        for chain in self.real.pop_batch(limit):
            if self.index == 1 and len(chain.readable()) != 2:
                self.real.push(chain, 0)
            else:
                chains.append(chain)
        return chains


@breaks("framing.no_assumptions", "dm.net.framing", how="net")
class WantsHeaderAndFrameApart(_Card):
    """Sends frames only whose header has a descriptor of its own."""

    ring_class = _OneDescriptor


def _header(chain: Chain) -> tuple[int, int, int]:
    head = b"".join(bytes(part) for part in chain.readable(0, 10))
    flags, _, _, _, start, offset = struct.unpack("<BBHHHH", head)
    return flags, start, offset


class _Particular(OwnRing):
    unknown_flags = False

    def pop_batch(self, limit: int = 64) -> list[Chain]:
        chains = []
        for chain in self.real.pop_batch(limit):
            if self.index == 1 and chain.readable_bytes >= 10 and self.refuses(*_header(chain)):
                self.real.push(chain, 0)
            else:
                chains.append(chain)
        return chains

    def refuses(self, flags: int, start: int, offset: int) -> bool:
        return bool(flags & ~1)


@breaks("net.tx.ignore_unknown_flags", how="net")
class RefusesUnknownFlags(_Card):
    """Drops frames with flags that it does not know."""

    ring_class = _Particular


class _Checking(_Particular):
    def refuses(self, flags: int, start: int, offset: int) -> bool:
        return not flags & 1 and start + offset > 60


@breaks("net.tx.no_csum_fields", how="net")
class LooksAtChecksumFieldsUnasked(_Card):
    """Drops frames whose checksum fields point outside, though NEEDS_CSUM is clear."""

    ring_class = _Checking


@breaks("d.net.legacy.mac_rw", how="net")
class RefusesALegacyAddress(_Card):
    """Ignores an address that a legacy driver writes."""

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """Nothing."""


@breaks("net.mq.reset_reselect", how="net pairs")
class LosesWhatComesForAResetQueue(_Card):
    """Drops the packets that a tap has for a pair whose receive queue is reset, and lets it have them."""

    def receives(self, pair: int, able: bool) -> None:
        """The tap is not told."""


@breaks("net.mq.reset_drop", how="net pairs")
class KeepsPacketsForAQueueThatComesBack(_Card):
    """Leaves packets in the tap until there is a receive queue again."""

    def receives(self, pair: int, able: bool) -> None:
        """The tap goes on to hand them out, and nobody reads them."""
        self.pairs[pair].deaf = False
        self.pairs[pair]._follow()
