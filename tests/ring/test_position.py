"""acrn_dm.ring.position: what is handed from one server of a ring to the next."""

import pytest

from acrn_dm.ring.position import RingPosition, as_position
from acrn_dm.virtio.backend import SessionQueue


class Bell:
    fd = -1


def test_position_that_a_peer_says_is_the_same_when_it_is_said_again() -> None:
    assert RingPosition.from_base(65535).base == 65535
    assert RingPosition.from_base(0xFFFF_FFFF).base == 0xFFFF_FFFF


@pytest.mark.parametrize("base", [-1, 1 << 32, 1 << 40])
def test_number_that_is_no_position_raises_value_error(base: int) -> None:
    with pytest.raises(ValueError, match=str(base)):
        as_position(base)


def test_queue_takes_the_number_that_a_backend_from_outside_returned() -> None:
    queue = SessionQueue(index=0, size=8, desc=0, avail=0, used=0, kick=Bell(), call=Bell(), position=7)  # type: ignore[arg-type]
    assert queue.position == RingPosition(7)
    assert queue.next_avail == 7
