"""MSI with one vector or several, and the capability's four forms (PCI Local Bus 3.0, 6.8.1).

Unlike in the original the registers are live: a new address or data counts without writing control again.
"""

from acrn_dm.base.irq import MsiMessage
from acrn_dm.base.records import frozen
from acrn_dm.pci.config_space import ConfigSpace
from acrn_dm.pci.vectors import MessageVectors

CAPABILITY_ID = 0x05
CONTROL_ENABLE = 1 << 0
MAX_LOG_VECTORS = 5
_CAPABLE_SHIFT, _ENABLED_SHIFT, _LOG_MASK = 1, 4, 7  # of control: log2 of the vectors that there are, that are used
_WIDE, _MASKABLE = 1 << 7, 1 << 8
_ENABLED_MASK = _LOG_MASK << _ENABLED_SHIFT


@frozen(kw_only=True)
class MsiForm:
    """A form of the capability: control +2, address low +4 (and high +8 if *wide*), data behind it (16 bits, 2 more
    reserved); if *maskable* then masks and pending bits, a register each. There are 2 to the *log_vectors* vectors.
    """

    log_vectors: int = 0
    wide: bool = True
    maskable: bool = True

    @classmethod
    def of(cls, control: int) -> "MsiForm":
        """What the message control register *control* tells. Raises ValueError for a reserved number of vectors."""
        log = control >> _CAPABLE_SHIFT & _LOG_MASK
        if log > MAX_LOG_VECTORS:
            raise ValueError(f"MSI whose number of vectors is {log}, which is reserved")
        return cls(log_vectors=log, wide=bool(control & _WIDE), maskable=bool(control & _MASKABLE))

    @property
    def data(self) -> int:
        """Offset of the message data."""
        return 12 if self.wide else 8

    @property
    def mask(self) -> int:
        """Offset of the mask bits, where there are any."""
        return self.data + 4

    @property
    def pending(self) -> int:
        """Offset of the pending bits, where there are any."""
        return self.data + 8

    @property
    def length(self) -> int:
        """Bytes of the capability, with id and next pointer."""
        return self.pending + 4 if self.maskable else self.data + 2

    @property
    def body(self) -> bytes:
        """Its registers behind id and next pointer, at power-on."""
        control = self.log_vectors << _CAPABLE_SHIFT | (_WIDE if self.wide else 0) | (_MASKABLE if self.maskable else 0)
        return control.to_bytes(2, "little") + bytes(self.length - 4)

    @property
    def writable(self) -> bytes:
        """Which bits of ``body`` a driver may change."""
        control = CONTROL_ENABLE | (_ENABLED_MASK if self.log_vectors else 0)
        address = bytes.fromhex("fcffffff") + (b"\xff" * 4 if self.wide else b"")
        rest = ((1 << (1 << self.log_vectors)) - 1).to_bytes(4, "little") + bytes(4) if self.maskable else b""
        return control.to_bytes(2, "little") + address + b"\xff\xff" + (bytes(2) + rest if rest else b"")


class Msi(MessageVectors):
    """The MSI state of one function; its registers live in the configuration space at *capability*."""

    def __init__(self, config: ConfigSpace, capability: int, form: MsiForm) -> None:
        super().__init__(1 << form.log_vectors)
        self.form = form
        self._config = config
        self._capability = capability
        self._masks = self._log_used = 0

    def raise_(self) -> None:
        """Deliver the first vector, or keep it pending. Any thread."""
        self.raise_vector(0)

    def registers_written(self) -> None:
        """The guest wrote the capability."""
        at = self._capability
        control = self._config.read(at + 2, 2)
        self._masks = self._config.read(at + self.form.mask, 4) if self.form.maskable else 0
        self._log_used = min(control >> _ENABLED_SHIFT & _LOG_MASK, self.form.log_vectors)
        self._set_enabled(bool(control & CONTROL_ENABLE))
        self._changed(range(self.vectors))

    def pending_register(self, offset: int, size: int) -> int:
        """The part of the pending register that an access to *offset* of the configuration space sees, in place."""
        if not self.form.maskable:
            return 0
        shift = self._capability + self.form.pending - offset
        bits = self.pending_bits
        value = bits << (8 * shift) if shift >= 0 else bits >> (-8 * shift)
        return value & ((1 << (8 * size)) - 1)

    def _compose(self, vector: int) -> MsiMessage | None:
        """With several vectors the low bits of the data are the vector's number (6.8.1.3)."""
        if not self.enabled or self._masks >> vector & 1 or vector >> self._log_used:
            return None
        at = self._capability
        addr = self._config.read(at + 4, 8 if self.form.wide else 4)
        low = (1 << self._log_used) - 1
        return MsiMessage(addr=addr, data=self._config.read(at + self.form.data, 2) & ~low | vector)
