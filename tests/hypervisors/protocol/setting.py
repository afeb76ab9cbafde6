"""What the tests of every hypervisor share: places that their guests touch, and what came of it."""

import os
import select
from collections.abc import Callable

from acrn_dm.base.irq import IoEventFd, MsiMessage, Space
from tests.hypervisors.guest_program import (
    VECTOR_PORT,
    VECTORS,
    Out,
)
from tests.hypervisors.guests import Guest

PORT = 0x500
WINDOW = 0xD000_0000
READY = Out(0x5FF, 1, 1)
GSI = 17
MSI = MsiMessage(addr=0xFEE0_0000, data=VECTORS[0])  # APIC 0, fixed delivery, edge

EventFd = Callable[[], int]


def signalled(fd: int, patience: float = 0) -> bool:
    """Read the eventfd; was it signalled?"""
    if not select.select([fd], [], [], patience)[0]:
        return False
    os.eventfd_read(fd)
    return True


def vectors(guest: Guest) -> list[int]:
    return [access[3] for access in guest.recorder.accesses if access[:2] == ("out", VECTOR_PORT)]


def wait_vectors(guest: Guest, *expected: int) -> None:
    guest.wait_for(lambda: vectors(guest) == list(expected))


def kick(fd: int, space: Space, addr: int, length: int, datamatch: int | None = None) -> IoEventFd:
    return IoEventFd(fd=fd, space=space, addr=addr, len=length, datamatch=datamatch)
