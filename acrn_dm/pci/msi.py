"""MSI with one vector, 64-bit address and per-vector masking (PCI Local Bus 3.0, 6.8.1).

Capability: control +2, address low +4, high +8, data +12 (16 bits), mask +16, pending +20. Unlike in the original the
registers are live: a new address or data counts without writing control again.
"""

from acrn_dm.base.irq import MsiMessage
from acrn_dm.pci.config_space import ConfigSpace
from acrn_dm.pci.vectors import MessageVectors

CAPABILITY_ID = 0x05
LENGTH = 24
CONTROL_ENABLE = 1 << 0
CONTROL = 0x0180  # 64-bit address, per-vector mask, one vector
# Body after id and next pointer: control, address low, high, data, reserved, mask, pending
BODY = CONTROL.to_bytes(2, "little") + bytes(20)
WRITABLE = bytes.fromhex("0100 fcffffff ffffffff ffff 0000 01000000 00000000")


class Msi(MessageVectors):
    """The MSI state of one function; its registers live in the configuration space at *capability*."""

    def __init__(self, config: ConfigSpace, capability: int) -> None:
        super().__init__(1)
        self._config = config
        self._capability = capability
        self._masked = False

    def raise_(self) -> None:
        """Deliver the one vector, or keep it pending. Any thread."""
        self.raise_vector(0)

    def registers_written(self) -> None:
        """The guest wrote the capability."""
        at = self._capability
        self._masked = bool(self._config.read(at + 16, 4) & 1)
        self._set_enabled(bool(self._config.read(at + 2, 2) & CONTROL_ENABLE))
        self._changed((0,))

    def pending_register(self, offset: int, size: int) -> int:
        """The part of the pending register that an access to *offset* of the configuration space sees, in place."""
        shift = self._capability + 20 - offset
        bits = self.pending_bits
        value = bits << (8 * shift) if shift >= 0 else bits >> (-8 * shift)
        return value & ((1 << (8 * size)) - 1)

    def _compose(self, vector: int) -> MsiMessage | None:
        if not self.enabled or self._masked:
            return None
        at = self._capability
        addr = self._config.read(at + 4, 8)
        return MsiMessage(addr=addr, data=self._config.read(at + 12, 2))
