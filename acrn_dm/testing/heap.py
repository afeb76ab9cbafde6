"""Guest memory for a driver's rings and buffers: blocks of a power of two, each kind with its free list."""


class GuestHeap:
    """The free and taken guest addresses in [base, end). A block is aligned to its size, up to a page."""

    def __init__(self, base: int, end: int) -> None:
        self._base = self._next = base
        self._end = end
        self._free: dict[int, list[int]] = {}
        self._sizes: dict[int, int] = {}

    @property
    def used_range(self) -> tuple[int, int]:
        """Address and length of everything ever handed out."""
        return self._base, self._next - self._base

    def take(self, size: int) -> int:
        """Return the address of at least *size* bytes. Raises MemoryError."""
        block = 1 << max(4, (max(size, 1) - 1).bit_length())
        free = self._free.setdefault(block, [])
        if not free:
            alignment = min(block, 4096)
            at = -(-self._next // alignment) * alignment
            if at + block > self._end:
                raise MemoryError(f"the simulated guest has no {block:#x} bytes left")
            self._next = at + block
            free.append(at)
        gpa = free.pop()
        self._sizes[gpa] = block
        return gpa

    def give(self, gpa: int) -> None:
        """Take a block back."""
        self._free[self._sizes.pop(gpa)].append(gpa)
