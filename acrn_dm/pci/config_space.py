"""The 256 bytes of a function's configuration space: storage with per-bit access rules.

Every bit is read-only, writable, or cleared by writing 1 (PCI Local Bus 3.0, 6.2); the rules are data beside the
bytes. A write of any width touches exactly its bytes, as byte enables do in hardware. What a write *means* is
``function.py``'s task.
"""

import attrs

from acrn_dm.base.records import define

SIZE = 256
EXTENDED_SIZE = 4096  # of a PCI Express function

VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION = 0x08
CACHE_LINE = 0x0C
HEADER_TYPE = 0x0E
BAR0 = 0x10
SUBSYSTEM_VENDOR = 0x2C
CAPABILITIES = 0x34
INTERRUPT_LINE = 0x3C
INTERRUPT_PIN = 0x3D
FIRST_CAPABILITY = 0x40
CAP_EXPRESS = 0x10  # capability id of a PCI Express function

COMMAND_IO = 1 << 0
COMMAND_MEMORY = 1 << 1
COMMAND_MASTER = 1 << 2
COMMAND_PARITY = 1 << 6
COMMAND_SERR = 1 << 8
COMMAND_INTX_DISABLE = 1 << 10
COMMAND_WRITABLE = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_DISABLE
STATUS_INTERRUPT = 1 << 3
STATUS_CAPABILITIES = 1 << 4
STATUS_ERRORS = 0xF900  # cleared by writing 1; this device model never sets one

MULTI_FUNCTION = 0x80  # in HEADER_TYPE


def _blank() -> bytearray:
    return bytearray(SIZE)


@define(eq=False)
class ConfigSpace:
    """Little-endian registers; offsets and sizes are bytes, and must lie inside (the callers bound guest accesses)."""

    _live: bytearray = attrs.field(factory=_blank, init=False, repr=False)
    _power_on: bytearray = attrs.field(factory=_blank, init=False, repr=False)
    _writable: bytearray = attrs.field(factory=_blank, init=False, repr=False)
    _clear_by_one: bytearray = attrs.field(factory=_blank, init=False, repr=False)

    def define(self, offset: int, size: int, value: int, writable: int = 0, clear_by_one: int = 0) -> None:
        """Lay a register out: its value now and after every reset, and which bits the guest may change or clear."""
        span = slice(offset, offset + size)
        self._live[span] = self._power_on[span] = value.to_bytes(size, "little")
        self._writable[span] = writable.to_bytes(size, "little")
        self._clear_by_one[span] = clear_by_one.to_bytes(size, "little")

    def set(self, offset: int, size: int, value: int) -> None:
        """Store as the device does: access rules do not apply, the power-on value stays."""
        self._live[offset : offset + size] = value.to_bytes(size, "little")

    def set_power_on(self, offset: int, size: int, value: int) -> None:
        """Store now and for every reset, keeping the access rules."""
        self._power_on[offset : offset + size] = value.to_bytes(size, "little")
        self.set(offset, size, value)

    def read(self, offset: int, size: int) -> int:
        """Return *size* bytes at *offset*."""
        return int.from_bytes(self._live[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store as the guest does; bits that it may not change keep their value."""
        for i, new in enumerate((value & ((1 << (8 * size)) - 1)).to_bytes(size, "little"), offset):
            mask = self._writable[i]
            old = self._live[i]
            self._live[i] = ((old & ~mask) | (new & mask)) & ~(new & self._clear_by_one[i])

    def reset(self) -> None:
        """Back to the power-on values."""
        self._live[:] = self._power_on
