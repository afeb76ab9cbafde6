"""Pages of the guest that go back to the host."""

import logging
import struct
from collections.abc import Iterable, Iterator

import attrs

from acrn_dm import GuestError, GuestMemory
from acrn_dm_balloon.config import PAGE

log = logging.getLogger(__name__)


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of each run of page numbers that follow one another, whatever their order was."""
    first = count = 0
    for number in sorted(set(numbers)):
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count


def page_numbers(data: bytes) -> tuple[int, ...]:
    """The numbers in an inflate or deflate request; a piece at the end is nothing."""
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


@attrs.define(eq=False)
class Pages:
    """The way back to the host, and what went it. Counters are bytes and only grow."""

    name: str  # for messages
    memory: GuestMemory
    given_back: int = 0
    kept: int = 0  # offered by the guest, and not given back

    def discard(self, gpa: int, length: int) -> int:
        """Give the range back, as far as it is RAM; a guest that offers other addresses gains nothing and loses
        nothing. Returns how many bytes went back. Raises HostError.
        """
        try:
            given = self.memory.discard(gpa, length)
        except GuestError as e:
            log.debug("%s: %s", self.name, e)
            return 0
        self.given_back += given
        self.kept += length - given
        return given

    def discard_numbers(self, numbers: Iterable[int]) -> None:
        """Give the pages of these numbers back. Raises HostError."""
        for first, count in runs(numbers):
            self.discard(first * PAGE, count * PAGE)
