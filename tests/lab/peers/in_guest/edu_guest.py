"""The guest's side of a test: an edu card driven from user space by the kernel's vfio-pci, behind an IOMMU.

Usage: edu_guest.py ADDRESS intx|msi. Prints a line of JSON: what the card's registers, its DMA and its interrupt gave.
"""

import ctypes
import fcntl
import json
import mmap
import os
import select
import struct
import sys
import time

SET_IOMMU, SET_CONTAINER, GET_DEVICE, REGION_INFO, SET_IRQS = 0x3B66, 0x3B68, 0x3B6A, 0x3B6C, 0x3B6E
MAP_DMA, UNMAP_DMA = 0x3B71, 0x3B72
TYPE1 = 1
CONFIG = 7
KINDS = {"intx": 0, "msi": 1}
NONE, EVENTFD, UNMASK, TRIGGER = 1, 4, 16, 32
PATIENCE_S = 20.0
PAGE = mmap.PAGESIZE
CARD_MEMORY = 0x4_0000
ADDRESSES = 0x10_0000, 0x20_0000  # as the card sees the pages


class Card:
    """The card at *address*, open."""

    def __init__(self, address: str) -> None:
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group"))
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(self.group, SET_CONTAINER, struct.pack("<i", self.container))
        fcntl.ioctl(self.container, SET_IOMMU, TYPE1)
        self.fd = fcntl.ioctl(
            self.group, GET_DEVICE, bytearray(address.encode() + b"\0")
        )  # a number only with what it may write to

    def place(self, region: int) -> int:
        asked = struct.pack("<IIIIQQ", 32, 0, region, 0, 0, 0)
        return int(struct.unpack("<IIIIQQ", fcntl.ioctl(self.fd, REGION_INFO, asked))[5])

    def read(self, offset: int, size: int = 4, region: int = 0) -> int:
        return int.from_bytes(os.pread(self.fd, size, self.place(region) + offset), "little")

    def write(self, offset: int, value: int, size: int = 4, region: int = 0) -> None:
        os.pwrite(self.fd, value.to_bytes(size, "little"), self.place(region) + offset)

    def irqs(self, index: int, flags: int, *fds: int) -> None:
        fcntl.ioctl(self.fd, SET_IRQS, struct.pack(f"<IIIII{len(fds)}i", 20 + 4 * len(fds), flags, index, 0, 1, *fds))

    def map(self, page: mmap.mmap, address: int) -> None:
        here = ctypes.addressof(ctypes.c_char.from_buffer(page))
        fcntl.ioctl(self.container, MAP_DMA, struct.pack("<IIQQQ", 32, 3, here, address, PAGE))

    def unmap(self, address: int) -> None:
        fcntl.ioctl(self.container, UNMAP_DMA, struct.pack("<IIQQ", 24, 0, address, PAGE))

    def wait(self, offset: int, bit: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.read(offset) & bit:
            if time.monotonic() > until:
                raise TimeoutError(f"register {offset:#x} still has {bit:#x}")

    def move(self, source: int, target: int, count: int, command: int) -> None:
        for offset, value in ((0x80, source), (0x88, target), (0x90, count), (0x98, command)):
            self.write(offset, value)
        self.wait(0x98, 1)


def moved(card: Card) -> bool:
    """Whether what goes into the card by DMA comes out of it, into another page."""
    pages = [mmap.mmap(-1, PAGE, mmap.MAP_SHARED) for _ in range(2)]
    for page, address in zip(pages, ADDRESSES, strict=True):
        page[:] = os.urandom(PAGE)
        card.map(page, address)
    card.move(ADDRESSES[0], CARD_MEMORY, PAGE, 1)
    card.move(CARD_MEMORY, ADDRESSES[1], PAGE, 3)
    same = pages[0][:] == pages[1][:]
    for address in ADDRESSES:
        card.unmap(address)
    return same


def interrupts(card: Card, kind: str) -> list[int]:
    """What the status register said at each of three interrupts, and how many more came."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    card.irqs(KINDS[kind], EVENTFD | TRIGGER, fd)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = []
    for value in (1, 2, 4):
        card.write(0x60, value)
        if not poll.poll(PATIENCE_S * 1000):
            raise TimeoutError(f"no interrupt by {kind}")
        os.eventfd_read(fd)
        said.append(card.read(0x24))
        card.write(0x64, value)
        if kind == "intx":
            card.irqs(0, NONE | UNMASK)
    return [*said, len(poll.poll(0))]


def main(address: str, kind: str) -> None:
    card = Card(address)
    card.write(4, card.read(4, 2, CONFIG) | 6, 2, CONFIG)
    card.write(4, 0x1234)
    inverse = card.read(4)
    card.write(8, 10)
    card.wait(0x20, 1)
    result = {"id": card.read(0), "inverse": inverse, "factorial": card.read(8), "moved": moved(card)}
    print(json.dumps({**result, "interrupts": interrupts(card, kind)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
