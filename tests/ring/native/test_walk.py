"""The walk with a driver that behaves: chains of every framing, direct and through indirect tables."""

from acrn_dm.ring.layout import DESC
from acrn_dm.ring.layout import DESC_F_INDIRECT as INDIRECT
from acrn_dm.ring.layout import DESC_F_NEXT as NEXT
from acrn_dm.ring.layout import DESC_F_WRITE as WRITE
from tests.ring.fastring_rig import DATA, HIGH, TABLE, TOUCHING, Rig


def test_chain_longer_than_the_inline_segments_is_whole() -> None:
    rig = Rig(size=16)
    rig.memory.write(DATA, bytes(range(16)))
    rig.offer([(DATA + i, 1) for i in range(16)], [])
    assert rig.pop().read() == bytes(range(16))


def test_framing_no_assumptions_request_in_one_byte_descriptors_reads_the_same() -> None:
    """Conformance row framing.no_assumptions."""
    rig = Rig(size=32)
    request = bytes(range(16))
    rig.memory.write(DATA, request)
    rig.offer([(DATA, 16)], [(HIGH, 4)])
    whole = rig.pop()
    pieces_head = rig.offer([(DATA + i, 1) for i in range(16)], [(HIGH + i, 1) for i in range(4)])
    pieces = rig.pop()
    assert (pieces.head, whole.read(), pieces.read()) == (pieces_head, request, request)
    assert pieces.write(b"done") == whole.write(b"done") == 4


def test_split_desc_no_write_table_leaves_descriptors_and_readable_buffers_alone() -> None:
    """Conformance rows split.desc.no_write_table, split.desc.no_write_readable."""
    rig = Rig(size=4)
    rig.memory.write(DATA, b"readable")
    rig.offer([(DATA, 8)], [(HIGH, 8)])
    before = rig.memory.read(rig.layout.desc, 16 * 4)
    chain = rig.pop()
    chain.write(b"writable")
    rig.complete(chain)
    assert (rig.memory.read(rig.layout.desc, 16 * 4), rig.memory.read(DATA, 8)) == (before, b"readable")


def test_indirect_chain_reads_and_writes_like_a_direct_one() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"hello")
    head = rig.offer([(DATA, 2), (DATA + 2, 3)], [(HIGH, 4)], table=TABLE)
    chain = rig.pop()
    assert (chain.head, chain.read(), chain.write(b"abcd")) == (head, b"hello", 4)


def test_split_indirect_ignore_write_flag_of_the_referring_descriptor() -> None:
    """Conformance row split.indirect.ignore_write_flag."""
    rig = Rig(indirect=True)
    rig.offer([(DATA, 3)], [], table=TABLE)
    rig.driver.write_desc(0, TABLE, 16, WRITE | INDIRECT)
    chain = rig.pop()
    assert (chain.readable_bytes, chain.writable_bytes) == (3, 0)


def test_split_indirect_direct_then_indirect_is_one_chain() -> None:
    """Conformance row split.indirect.direct_then_indirect."""
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abcdef")
    rig.memory.write(TABLE, DESC.pack(DATA + 3, 3, NEXT, 1) + DESC.pack(HIGH, 9, WRITE, 0))
    rig.offer_raw((DATA, 3, NEXT, 5), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (TABLE, 32, INDIRECT, 0))
    chain = rig.pop()
    assert (chain.head, chain.read(), chain.writable_bytes) == (0, b"abcdef", 9)


def test_indirect_table_across_touching_regions_works() -> None:
    rig = Rig(indirect=True)
    rig.memory.write(DATA, b"abcdef")
    head = rig.offer([(DATA, 2), (DATA + 2, 2), (DATA + 4, 2)], [], table=TOUCHING - 24)
    chain = rig.pop()
    assert (chain.head, chain.read()) == (head, b"abcdef")


def test_indirect_chain_longer_than_the_queue_works_up_to_1024_descriptors() -> None:
    """Linux makes such tables for block devices with seg_max above the queue size; QEMU's limit is the same 1024."""
    rig = Rig(size=2, indirect=True)
    rig.offer([], [(DATA, 1)] * 1024, table=TOUCHING)
    assert rig.pop().writable_bytes == 1024
