"""Chains, raw descriptors and whole rings as strategies; rings are written over the formats that there are."""

from collections.abc import Sequence

import attrs
from hypothesis import strategies as st

from acrn_dm.ring.driver import table_bytes
from acrn_dm.ring.factory import make_driver_ring, ring_format
from acrn_dm.ring.features import EVENT_IDX, INDIRECT_DESC, PACKED
from acrn_dm.ring.layout import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, RingMemory
from acrn_dm.ring.ring import DriverSide
from acrn_dm.testing.sessions.actions import Descriptor

Shape = tuple[tuple[bytes, ...], tuple[int, ...]]  # contents of readable buffers, lengths of writable ones

FORMATS = (0, PACKED)  # the feature bits that choose a ring format: split, packed
RAM = 0x4000  # where raw descriptors point to, if they point into memory


def chains(*, max_buffers: int = 4, max_length: int = 64) -> st.SearchStrategy[Shape]:
    """Chains of one buffer at least: contents of device-readable and lengths of device-writable buffers."""
    out = st.lists(st.binary(min_size=1, max_size=max_length), max_size=max_buffers).map(tuple)
    in_ = st.lists(st.integers(1, max_length), max_size=max_buffers).map(tuple)
    return st.tuples(out, in_).filter(lambda shape: bool(shape[0] or shape[1]))


def descriptors(*, size: int = 8, max_count: int = 4) -> st.SearchStrategy[list[Descriptor]]:
    """Raw (gpa, length, flags, next) as a hostile driver would write them: loops, wild addresses, any flags."""
    gpa = st.one_of(st.integers(RAM, RAM + 256), st.sampled_from([0, 1 << 40, (1 << 64) - 1]))
    length = st.one_of(st.integers(0, 64), st.sampled_from([16, 17, 0xFFFF_FFFF]))
    flags = st.integers(0, DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT)
    following = st.one_of(st.integers(0, size), st.just(0xFFFF))
    return st.lists(st.tuples(gpa, length, flags, following), min_size=1, max_size=max_count)


@attrs.frozen(kw_only=True)
class RingCase:
    """A ring as its driver has filled it: its format by *features*, its size, how many chains (packed: descriptors)
    went before, its chains and which of them are in indirect tables.
    """

    features: int = attrs.field(repr=hex)
    size: int
    start: int
    chains: tuple[tuple[Shape, bool], ...]

    def fill(self, memory: RingMemory, gpa: int) -> DriverSide:
        """Lay the ring out in *memory* from *gpa* on, its buffers behind it, and publish all chains."""
        layout = ring_format(self.features).lay_out(gpa, self.size, 4096)
        ring = make_driver_ring(self.features, layout, memory, start=self.start)
        at = -(-layout.end // 4096) * 4096
        for (out, in_), indirect in self.chains:
            table = None
            if indirect:
                table, at = at, at + table_bytes(len(out) + len(in_))
            readable: list[tuple[int, int]] = []
            for data in out:
                memory.write(at, data)
                readable.append((at, len(data)))
                at += len(data)
            writable: list[tuple[int, int]] = []
            for length in in_:
                writable.append((at, length))
                at += length
            ring.add_chain(readable, writable, table)
        ring.publish()
        return ring


@st.composite
def rings(
    draw: st.DrawFn, *, formats: Sequence[int] = FORMATS, sizes: Sequence[int] = (1, 2, 4, 8, 16), max_chains: int = 8
) -> RingCase:
    """Rings of every format, size, and event index or not; indices begin anywhere, often just before they wrap."""
    features = draw(st.sampled_from(formats)) | draw(st.sampled_from([0, EVENT_IDX]))
    features |= draw(st.sampled_from([0, INDIRECT_DESC]))
    size = draw(st.sampled_from(sizes))
    kept: list[tuple[Shape, bool]] = []
    left = size
    for shape in draw(st.lists(chains(), max_size=max_chains)):
        indirect = bool(features & INDIRECT_DESC) and draw(st.booleans())
        needed = 1 if indirect else len(shape[0]) + len(shape[1])
        if needed <= left:
            left -= needed
            kept.append((shape, indirect))
    wraps = st.integers(1, max(1, len(kept))).map(lambda n: 0x10000 - n)  # before the last chain is there
    start = draw(st.one_of(wraps, st.integers(0, 0xFFFF), st.just(0)))
    return RingCase(features=features, size=size, start=start, chains=tuple(kept))
