"""The position of a ring, for whoever serves it next."""

from acrn_dm.base.records import frozen

MAX_BASE = 0xFFFF_FFFF  # the field that vhost and vhost-user have for it


@frozen
class RingPosition:
    """The place at which a ring is to be gone on with. Outside ``ring`` it is handed on and compared, nothing else.

    *base* is the number by which vhost and vhost-user say the same thing (SET_VRING_BASE, GET_VRING_BASE): of a split
    ring the index of the next available entry, of a packed one both positions with their wrap counters.
    """

    base: int = 0

    @classmethod
    def from_base(cls, base: int) -> "RingPosition":
        """The position that a peer says. Raises ValueError for a number that is none of any format's."""
        if not 0 <= base <= MAX_BASE:
            raise ValueError(f"no ring is at {base}")
        return cls(base)


def as_position(value: RingPosition | int) -> RingPosition:
    """*value*, which a backend from outside may give as its base. Raises ValueError."""
    return value if isinstance(value, RingPosition) else RingPosition.from_base(value)
