"""Pages shared with the ACRN hypervisor: rings it fills, and a buffer it answers in. Only ACRN's own kernel has them.

The ring's header (64 bytes; ACRN hypervisor/include/public/acrn_common.h, ``shared_buf``) is: magic u64, number of
elements u32, their size u32, head u32 and tail u32 (offsets of the next one to read and to write), flags u32, reserved
u32, overruns u32, size of all elements u32, padding. Tail equal to head is an empty ring.
"""

import mmap
import struct

from acrn_dm.base._libc import address_of

PAGE = 4096
HEADER = struct.Struct("<QIIIIIIII24x")
HEAD_AT, TAIL_AT = 16, 20
MAGIC = 0x5AA5_7AA7_1AA1_3AA3


class SharedPage:
    """One page of memory of our own; the kernel pins it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, PAGE)
        self.address = address_of(self.memory)

    def close(self) -> None:
        """Unmap it. Idempotent."""
        self.memory.close()


class SharedRing(SharedPage):
    """A page with a ring of elements of *element_size* bytes, which the hypervisor puts there."""

    def __init__(self, element_size: int) -> None:
        super().__init__()
        count = (PAGE - HEADER.size) // element_size
        self._element_size = element_size
        self._size = count * element_size
        HEADER.pack_into(self.memory, 0, MAGIC, count, element_size, 0, 0, 0, 0, 0, self._size)

    def take(self) -> list[bytes]:
        """Return what has arrived since the last call, oldest first."""
        head, tail = (self._offset(at) for at in (HEAD_AT, TAIL_AT))
        if head == tail:
            return []
        found: list[bytes] = []
        while head != tail and len(found) * self._element_size < self._size:
            start = HEADER.size + head
            found.append(self.memory[start : start + self._element_size])
            head = (head + self._element_size) % self._size
        struct.pack_into("<I", self.memory, HEAD_AT, head)
        return found

    def _offset(self, at: int) -> int:
        value = int(struct.unpack_from("<I", self.memory, at)[0])
        return value if value < self._size and value % self._element_size == 0 else 0
