"""Transfers in pieces: how large they are, and that they end when nobody wants them."""

import errno
from collections.abc import Sequence

import attrs
import pytest

from acrn_dm.devices.virtio_blk.engine.pieces import (
    IOV_MAX,
    PIECE_BYTES,
    after,
    before,
    given_up_unless,
    require_wanted,
    transfer_all,
)
from tests.work import instructions

MIB = 1 << 20


@attrs.define(eq=False)
class Medium:
    """Takes everything and remembers the sizes."""

    sizes: list[int] = attrs.field(factory=list)
    vectors: list[int] = attrs.field(factory=list)
    offsets: list[int] = attrs.field(factory=list)

    def move(self, views: Sequence[memoryview], offset: int) -> int:
        self.sizes.append(sum(len(view) for view in views))
        self.vectors.append(len(views))
        self.offsets.append(offset)
        return self.sizes[-1]


def test_transfer_of_what_drivers_ask_for_is_one_call() -> None:
    medium = Medium()
    transfer_all(medium.move, [memoryview(bytes(4096))] * 256, 0)
    assert medium.sizes == [MIB]


def test_long_transfer_goes_in_pieces_of_bounded_size() -> None:
    medium = Medium()
    view = memoryview(bytes(3 * MIB))
    transfer_all(medium.move, [view] * 5, 7)
    assert medium.sizes == [PIECE_BYTES] * 3 + [15 * MIB - 3 * PIECE_BYTES]
    assert medium.offsets == [7 + n * PIECE_BYTES for n in range(4)]


def test_call_gets_no_more_vectors_than_the_kernel_takes() -> None:
    medium = Medium()
    transfer_all(medium.move, [memoryview(b"x")] * (2 * IOV_MAX + 1), 0)
    assert medium.vectors == [IOV_MAX, IOV_MAX, 1]


def test_transfer_ends_at_the_piece_after_it_was_given_up() -> None:
    medium = Medium()
    view = memoryview(bytes(16 * MIB))
    with pytest.raises(OSError, match="has reset") as raised, given_up_unless(lambda: len(medium.sizes) < 2):
        transfer_all(medium.move, [view] * 240, 0)  # 3.75 GiB
    assert raised.value.errno == errno.ECANCELED
    assert medium.sizes == [PIECE_BYTES] * 2


def test_thread_that_works_for_nobody_is_wanted() -> None:
    with given_up_unless(lambda: False):
        pass
    require_wanted()


@pytest.mark.parametrize("length", range(8))
def test_views_before_and_after_a_length_are_all_there_is(length: int) -> None:
    views = [memoryview(b"abc"), memoryview(b""), memoryview(b"def")]
    assert b"".join(before(views, length)) == b"abcdef"[:length]
    if length <= 6:
        assert b"".join(after(views, length)) == b"abcdef"[length:]


def test_cutting_views_costs_what_is_cut_off_and_not_what_is_left() -> None:
    def cut(count: int) -> int:
        views = [memoryview(b"x")] * count
        return instructions(lambda: after(views, 100))

    assert cut(10_000) <= 1.1 * cut(200)
