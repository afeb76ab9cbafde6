"""MSI-X: the table and pending-bit array in a BAR, and the message control register (PCI Local Bus 3.0, 6.8.2).

Table entry, 16 bytes: message address low, high, message data, vector control (bit 0: masked). Layout of the BAR as in
the original: table at 0, pending-bit array at the next 4 KiB.
"""

import attrs

from acrn_dm.base.irq import MsiMessage
from acrn_dm.base.records import define
from acrn_dm.pci.vectors import MessageVectors

CAPABILITY_ID = 0x11
ENTRY_SIZE = 16
MAX_VECTORS = 2048
CONTROL_ENABLE = 1 << 15
CONTROL_FUNCTION_MASK = 1 << 14
MASKED = 1
PBA_ALIGNMENT = 4096
# Bits 1:0 of the address are zero, reserved bits of vector control stay zero.
_WRITABLE = (0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, MASKED)


def pba_offset(vectors: int) -> int:
    """Where the pending-bit array starts in the BAR."""
    return -(-vectors * ENTRY_SIZE // PBA_ALIGNMENT) * PBA_ALIGNMENT


def bar_size(vectors: int) -> int:
    """Bytes of table and pending-bit array (whole 64-bit words); the BAR is the next power of two."""
    return pba_offset(vectors) + -(-vectors // 64) * 8


@define(eq=False)
class _Entry:
    """A table entry: address (low, high), data, vector control."""

    words: list[int] = attrs.field(factory=lambda: [0, 0, 0, MASKED])


class Msix(MessageVectors):
    """The MSI-X state of one function; also the handler of its BAR (called with the function's lock held)."""

    def __init__(self, vectors: int) -> None:
        if not 1 <= vectors <= MAX_VECTORS:
            raise ValueError(f"{vectors} MSI-X vectors: must be 1..{MAX_VECTORS}")
        super().__init__(vectors)
        self.function_masked = False
        self._entries = [_Entry() for _ in range(vectors)]
        self._pba = pba_offset(vectors)
        self._pba_end = bar_size(vectors)

    def set_control(self, control: int) -> None:
        """The guest wrote message control: *control* is the register as it now reads."""
        self.function_masked = bool(control & CONTROL_FUNCTION_MASK)
        self._set_enabled(bool(control & CONTROL_ENABLE))
        self._changed(range(self.vectors))

    def reset(self) -> None:
        """As after power-on: disabled, every entry masked, nothing pending."""
        self._entries = [_Entry() for _ in range(self.vectors)]
        self.set_control(0)

    def read(self, offset: int, size: int) -> int:
        """Read table or pending bits; naturally aligned, any width. The gap between them reads as zero."""
        if offset % size:
            return (1 << (8 * size)) - 1
        if offset < self.vectors * ENTRY_SIZE:
            return self._read_table(offset, size)
        if self._pba <= offset < self._pba_end:
            return self.pending_bits >> (8 * (offset - self._pba)) & ((1 << (8 * size)) - 1)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the table: 4 or 8 bytes, naturally aligned; everything else has no effect (6.8.2)."""
        if size not in (4, 8) or offset % size or offset >= self.vectors * ENTRY_SIZE:
            return
        vector, word = offset // ENTRY_SIZE, offset % ENTRY_SIZE // 4
        words = self._entries[vector].words
        for i in range(size // 4):
            words[word + i] = value >> (32 * i) & _WRITABLE[word + i]
        self._changed((vector,))

    def _read_table(self, offset: int, size: int) -> int:
        words = self._entries[offset // ENTRY_SIZE].words
        entry = words[0] | words[1] << 32 | words[2] << 64 | words[3] << 96
        return entry >> (8 * (offset % ENTRY_SIZE)) & ((1 << (8 * size)) - 1)

    def _compose(self, vector: int) -> MsiMessage | None:
        low, high, data, control = self._entries[vector].words
        if not self.enabled or self.function_masked or control & MASKED:
            return None
        return MsiMessage(addr=high << 32 | low, data=data)
