"""24C02: an EEPROM of 256 bytes. Writes come in pages of 8 and take effect at the stop, as in the chip."""

import os

from acrn_dm import HostError
from acrn_dm_i2c.slave import Slave

SIZE, PAGE = 256, 8
BLANK = b"\xff"


class Eeprom(Slave):
    """The chip; *text* is the file that keeps its content, made when it is not there; empty: it is blank each time."""

    def __init__(self, text: str) -> None:
        self.path = text
        self.content = bytearray(BLANK * SIZE)
        self._address = 0
        self._expects_address = False
        self._page: dict[int, int] = {}  # what was written since the start
        self._fd = -1

    def open(self) -> None:
        """Read the file. Raises HostError."""
        if not self.path:
            return
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            data = os.pread(self._fd, SIZE, 0)
            self.content[:] = data.ljust(SIZE, BLANK)
            os.pwrite(self._fd, self.content, 0)
        except OSError as e:
            raise HostError.from_os(f"opening {self.path}", e) from e

    def start(self, read: bool) -> bool:
        """A write begins with an address."""
        self._expects_address = not read
        return True

    def write(self, byte: int) -> bool:
        """An address, then data: past the end of a page they go on at its start."""
        if self._expects_address:
            self._expects_address, self._address = False, byte
            self._page.clear()
            return True
        self._page[self._address] = byte
        self._address = self._address & -PAGE | (self._address + 1) % PAGE
        return True

    def read(self) -> int:
        """The byte at the address, which goes on past the end at the start."""
        byte = self.content[self._address]
        self._address = (self._address + 1) % SIZE
        return byte

    def stop(self) -> None:
        """Burn what was written. Raises HostError."""
        for address, byte in self._page.items():
            self.content[address] = byte
        pages, self._page = self._page, {}
        try:
            for address, byte in pages.items() if self._fd >= 0 else ():
                os.pwrite(self._fd, bytes([byte]), address)
        except OSError as e:
            raise HostError.from_os(f"writing {self.path}", e) from e

    def command(self, line: str) -> str:
        """``dump``: the content in hexadecimal."""
        if line != "dump":
            raise ValueError(f"{line!r}: expected dump")
        return self.content.hex()

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
