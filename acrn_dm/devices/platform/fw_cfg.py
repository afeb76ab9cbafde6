"""The configuration device that firmware made for QEMU asks: selector at port 0x510, data at 0x511, DMA at 0x514.

Source: QEMU docs/specs/fw_cfg.rst. An item is selected by number and read byte by byte, or into memory: the guest
writes the address of a descriptor (big-endian: control u32, length u32, address u64) to 0x514, upper half first, and
finds 0 in its control word when it is done, or the error bit.
"""

import struct
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from acrn_dm.base.address_map import FW_CFG
from acrn_dm.base.errors import GuestError

SELECTOR, DATA, DMA = FW_CFG, FW_CFG + 1, FW_CFG + 4

SIGNATURE, ID, CPUS, MAX_CPUS, FILE_DIRECTORY = 0x00, 0x01, 0x05, 0x0F, 0x19
KERNEL_SIZE, INITRD_SIZE, KERNEL_DATA, INITRD_DATA = 0x08, 0x0B, 0x11, 0x12
COMMAND_LINE_SIZE, COMMAND_LINE, SETUP_SIZE, SETUP_DATA = 0x14, 0x15, 0x17, 0x18
FIRST_FILE = 0x20
HAS_DMA = 3  # traditional interface and DMA
DMA_SIGNATURE = b"QEMU CFG"

ERROR, READ, SKIP, SELECT = 1 << 0, 1 << 1, 1 << 2, 1 << 3  # control word; bit 4 would be writing
DESCRIPTOR = struct.Struct(">IIQ")
NAME_SIZE = 56
CHUNK = 1 << 20
MAX_LENGTH = 1 << 31

Item = bytes | Callable[[], bytes]  # a function makes it when the guest selects it, each time as long as the first


class Memory(Protocol):
    """Guest RAM."""

    def read(self, gpa: int, length: int) -> bytes:
        """Raises GuestError."""

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Raises GuestError."""


def contents(items: Mapping[int, Item], files: Mapping[str, Item], vcpus: int) -> dict[int, Item]:
    """Add what every machine has to *items* by number and *files* by name."""
    numbered = {FIRST_FILE + i: data for i, data in enumerate(files.values())}
    entries = [
        struct.pack(f">IHH{NAME_SIZE}s", len(_made(data)), FIRST_FILE + i, 0, name.encode())
        for i, (name, data) in enumerate(files.items())
    ]
    count = struct.pack("<H", vcpus)
    return {
        SIGNATURE: b"QEMU",
        ID: struct.pack("<I", HAS_DMA),
        CPUS: count,
        MAX_CPUS: count,
        FILE_DIRECTORY: struct.pack(">I", len(entries)) + b"".join(entries),
        **items,
        **numbered,
    }


class FwCfg:
    """The device and its items: made empty; ``fill`` before each boot. vCPU threads call ``read`` and ``write``."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._memory: Memory | None = None
        self._lock = threading.Lock()
        self._item = b""
        self._at = 0
        self._address_high = 0

    def attach(self, memory: Memory) -> None:
        """Use *memory* for DMA."""
        self._memory = memory

    def fill(self, items: dict[int, Item]) -> None:
        """Take the items of the next boot."""
        with self._lock:
            self._items = items

    def reset(self) -> None:
        """Power-on state; the items stay."""
        with self._lock:
            self._item, self._at, self._address_high = b"", 0, 0

    def read(self, offset: int, size: int) -> int:
        """IN: the next byte of the item, or the signature that says that there is DMA."""
        with self._lock:
            if offset == DATA - SELECTOR and size == 1:
                return self._take(1)[0]
            at = offset - (DMA - SELECTOR)
            if at >= 0:
                return int.from_bytes(DMA_SIGNATURE[at : at + size].ljust(size, b"\0"), "big")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT: select an item, or begin a transfer."""
        with self._lock:
            if offset == 0 and size == 2:
                self._select(value)
            elif offset == DMA - SELECTOR and size == 4:
                self._address_high = _swap(value)
            elif offset == DMA - SELECTOR + 4 and size == 4:
                self._transfer(self._address_high << 32 | _swap(value))
                self._address_high = 0

    def _select(self, number: int) -> None:
        self._item, self._at = _made(self._items.get(number, b"")), 0

    def _take(self, length: int) -> bytes:
        """The next bytes; behind the item there are zeros."""
        data = self._item[self._at : self._at + length]
        self._at = min(self._at + length, len(self._item))
        return data.ljust(length, b"\0")

    def _transfer(self, gpa: int) -> None:
        """Do what the descriptor at *gpa* says. Raises GuestError when it is not in RAM: there is nobody to tell."""
        if self._memory is None:
            return
        control, length, address = DESCRIPTOR.unpack(self._memory.read(gpa, DESCRIPTOR.size))
        if control & SELECT:
            self._select(control >> 16)
        try:
            done = self._move(control, length, address)
        except GuestError:
            done = False
        self._memory.write(gpa, struct.pack(">I", 0 if done else ERROR))

    def _move(self, control: int, length: int, address: int) -> bool:
        if length > MAX_LENGTH:
            return False
        if control & READ:
            assert self._memory is not None
            for at in range(0, length, CHUNK):
                self._memory.write(address + at, self._take(min(CHUNK, length - at)))
            return True
        if control & SKIP:
            self._at = min(self._at + length, len(self._item))
            return True
        return not control & ~(SELECT | 0xFFFF_0000)


def _made(item: Item) -> bytes:
    return item if isinstance(item, bytes) else item()


def _swap(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "little"), "big")
