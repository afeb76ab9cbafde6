"""Interrupt and eventfd records: what a device asks the hypervisor for, and what the two eventfd hooks carry.

Nothing here performs a call; see ``contract/hypervisor.py`` for who does.
"""

import enum
from typing import Protocol

import attrs

from acrn_dm.base.records import frozen


class Space(enum.Enum):
    """Address space of an ioeventfd."""

    PIO = "pio"
    MMIO = "mmio"


@frozen(kw_only=True)
class IoEventFd:
    """A kick: a guest write of *len* bytes at *addr* in *space* makes *fd* readable instead of leaving the hypervisor.

    With *datamatch* only a write of exactly that value counts (one legacy notify port serves all queues of a device).
    """

    fd: int
    space: Space
    addr: int = attrs.field(repr=hex)
    len: int
    datamatch: int | None = None


@attrs.frozen(kw_only=True)
class MsiMessage:
    """An MSI or MSI-X message: *data* (32 bits) written to *addr* (64 bits, 0xFEExxxxx on x86)."""

    addr: int = attrs.field(repr=hex)
    data: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class IntxLine:
    """A level-triggered global system interrupt (IOAPIC pin)."""

    gsi: int


@frozen(kw_only=True)
class IrqFd:
    """A call: making *fd* readable raises *target* in the guest without this process.

    *resample_fd*, for level-triggered lines only, becomes readable when the guest acknowledges.
    """

    fd: int
    target: MsiMessage | IntxLine
    resample_fd: int | None = None


class InterruptSink(Protocol):
    """The way of interrupts that leave by a call of this process."""

    def inject_msi(self, message: MsiMessage) -> None:
        """Deliver *message* once."""

    def set_irq_line(self, gsi: int, asserted: bool) -> None:
        """Set the level of *gsi*; *asserted* is logical, the hypervisor knows the line's polarity."""


class EventFdRegistry(Protocol):
    """The place where eventfds are bound: the machine's face of the two hooks."""

    def ioeventfd(self, binding: IoEventFd, assign: bool) -> None:
        """Register or unregister a kick. Raises HostError."""

    def irqfd(self, binding: IrqFd, assign: bool) -> None:
        """Register or unregister a call. Raises HostError."""
