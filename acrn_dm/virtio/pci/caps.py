"""The vendor capabilities that tell a modern driver where the structures are (spec 4.1.4), and the configuration
window.

Bodies start behind the id and next-pointer bytes that every PCI capability has.
"""

import struct

from acrn_dm.pci.bar import Bar
from acrn_dm.pci.config_space import ConfigSpace
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.defs import CapType
from acrn_dm.virtio.pci import modern

CAPABILITY_ID = 0x09
BODY = struct.Struct("<BBBB2xII")  # cap_len, cfg_type, bar, id, padding, offset, length
CAP_LENGTH = 16

WINDOW_BAR = 4  # offsets in the PCI_CFG capability (4.1.4.9)
WINDOW_OFFSET = 8
WINDOW_LENGTH = 12
WINDOW_DATA = 16
WINDOW_DATA_SIZE = 4
WINDOW_LENGTHS = (1, 2, 4)


def _body(kind: CapType, bar: int, offset: int, length: int, extra: bytes = b"") -> bytes:
    return BODY.pack(CAP_LENGTH + len(extra), kind, bar, 0, offset, length) + extra


def add_structures(function: PciFunction, bar: int, *, queues: int, config_size: int) -> None:
    """Announce the structures in BAR *bar*; that of the device's configuration only if it has one (4.1.4.6.1)."""
    multiplier = modern.NOTIFY_MULTIPLIER.to_bytes(4, "little")
    bodies = [_body(CapType.COMMON, bar, modern.COMMON_OFFSET, modern.COMMON.size)]
    bodies.append(_body(CapType.ISR, bar, modern.ISR_OFFSET, 1))
    if config_size:
        bodies.append(_body(CapType.DEVICE, bar, modern.DEVICE_OFFSET, config_size))
    notify_size = queues * modern.NOTIFY_MULTIPLIER
    bodies.append(_body(CapType.NOTIFY, bar, modern.NOTIFY_OFFSET, notify_size, multiplier))
    for body in bodies:
        function.add_capability(CAPABILITY_ID, body)


class ConfigWindow:
    """VIRTIO_PCI_CAP_PCI_CFG: reach any BAR by configuration accesses alone, with the same effects (4.1.4.9).

    The driver sets bar, offset and length; each access to pci_cfg_data then is one access of that length there. A
    window that points nowhere reads as zero and swallows writes.
    """

    def __init__(self, function: PciFunction) -> None:
        self._function = function
        writable = BODY.pack(0, 0, 0xFF, 0, 0xFFFF_FFFF, 0xFFFF_FFFF) + bytes([0xFF] * WINDOW_DATA_SIZE)
        body = _body(CapType.PCI_CFG, 0, 0, 0, bytes(WINDOW_DATA_SIZE))
        self._at = function.add_capability(CAPABILITY_ID, body, writable)

    def covers(self, offset: int, size: int) -> bool:
        """Whether a configuration access touches pci_cfg_data."""
        data = self._at + WINDOW_DATA
        return offset < data + WINDOW_DATA_SIZE and data < offset + size

    def load(self) -> None:
        """Before the driver reads pci_cfg_data: fetch what the window shows into its first bytes."""
        target = self._target()
        value = 0
        if target is not None:
            bar, offset, length = target
            value = bar.handler.read(offset, length) & ((1 << (8 * length)) - 1)
        self._config.set(self._at + WINDOW_DATA, WINDOW_DATA_SIZE, value)

    def store(self) -> None:
        """After the driver wrote pci_cfg_data: carry the write out."""
        target = self._target()
        if target is not None:
            bar, offset, length = target
            bar.handler.write(offset, length, self._config.read(self._at + WINDOW_DATA, length))

    @property
    def _config(self) -> ConfigSpace:
        return self._function.config

    def _target(self) -> tuple[Bar, int, int] | None:
        bar = self._function.bars.get(self._config.read(self._at + WINDOW_BAR, 1))
        offset = self._config.read(self._at + WINDOW_OFFSET, 4)
        length = self._config.read(self._at + WINDOW_LENGTH, 4)
        if bar is None or length not in WINDOW_LENGTHS or offset % length or offset + length > bar.size:
            return None
        return bar, offset, length
