"""Global system interrupts of a KVM guest: which GSI reaches which interrupt controller pin, and which is an MSI.

GSIs 0 to 23 are the pins of the IOAPIC; 0 to 15 also reach the PICs. GSI 0, the timer, is IOAPIC pin 2, which the MADT
says by an interrupt source override; nothing is at pin 0. GSIs from 24 on carry MSIs that leave by an irqfd.
"""

import errno
from collections.abc import Callable

import attrs

from acrn_dm.errors import HostError
from acrn_dm.irq import MsiMessage

IOAPIC_PINS = 24
PIC_PINS = 8  # each of two
TIMER_GSI, TIMER_PIN = 0, 2


@attrs.frozen(kw_only=True)
class Chips:
    """The kernel's numbers of the three interrupt controllers."""

    pic_master: int
    pic_slave: int
    ioapic: int


def pin_routes(chips: Chips) -> list[tuple[int, int, int]]:
    """Return (gsi, chip, pin) of every wired pin.

    GSI 2 has no IOAPIC route: KVM maps an acknowledged pin back to one GSI, and for pin 2 that has to be the timer's.
    """
    routes = [(gsi, chips.pic_master, gsi) for gsi in range(PIC_PINS)]
    routes += [(gsi, chips.pic_slave, gsi - PIC_PINS) for gsi in range(PIC_PINS, 2 * PIC_PINS)]
    routes.append((TIMER_GSI, chips.ioapic, TIMER_PIN))
    routes += [(gsi, chips.ioapic, gsi) for gsi in range(IOAPIC_PINS) if gsi not in (TIMER_GSI, TIMER_PIN)]
    return routes


@attrs.define(eq=False)
class MsiRoutes:
    """GSIs that stand for MSI messages; one GSI a message, shared by its users.

    ``install`` hands all (gsi, addr, data) to the kernel after a change; when it raises, the change is taken back.
    Not locked: the owner is.
    """

    limit: int  # GSIs the kernel can route, pins included
    install: Callable[[list[tuple[int, int, int]]], None]
    _gsis: dict[MsiMessage, int] = attrs.field(factory=dict, init=False)
    _users: dict[MsiMessage, int] = attrs.field(factory=dict, init=False)

    def acquire(self, message: MsiMessage) -> int:
        """Return the GSI of *message*, routed; each call needs a ``release``. Raises HostError."""
        if message not in self._gsis:
            self._gsis[message] = self._free_gsi()
            try:
                self._install()
            except HostError:
                del self._gsis[message]
                raise
        self._users[message] = self._users.get(message, 0) + 1
        return self._gsis[message]

    def release(self, message: MsiMessage) -> None:
        """Take one use of *message* back; with the last the route goes."""
        self._users[message] -= 1
        if self._users[message]:
            return
        del self._users[message]
        del self._gsis[message]
        self._install()

    def gsi(self, message: MsiMessage) -> int:
        """Return the GSI of a *message* in use."""
        return self._gsis[message]

    def _install(self) -> None:
        self.install([(gsi, message.addr, message.data) for message, gsi in self._gsis.items()])

    def _free_gsi(self) -> int:
        taken = set(self._gsis.values())
        for gsi in range(IOAPIC_PINS, self.limit):
            if gsi not in taken:
                return gsi
        hint = "fewer queues with a vector of their own"
        raise HostError(f"all {self.limit} interrupt routes of KVM are in use", err=errno.ENOSPC, hint=hint)
