"""Global system interrupts of a KVM guest: which GSI reaches which interrupt controller pin, and which is an MSI.

GSIs 0 to 23 are the pins of the IOAPIC; 0 to 15 also reach the PICs. GSI 0, the timer, is IOAPIC pin 2, which the MADT
says by an interrupt source override; nothing is at pin 0. GSIs from 24 on carry MSIs that leave by an irqfd.
"""

import errno
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import MsiMessage
from acrn_dm.base.records import define, frozen

IOAPIC_PINS = 24
PIC_PINS = 8  # each of two
TIMER_GSI, TIMER_PIN = 0, 2
SPARE_ROUTES = 64  # that nobody uses, beside as many as are used


@frozen(kw_only=True)
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


@define(eq=False)
class MsiRoutes:
    """GSIs that stand for MSI messages; one GSI a message, shared by its users.

    ``install`` hands all (gsi, addr, data) to the kernel after a change, which costs the more the more there are; when
    it raises, the change is taken back. So a route whose last user has left stays for a while: a guest that masks and
    unmasks a vector, or switches a function off and on, comes back to the same message; one that moves its interrupts
    about makes new ones, which take the place of the oldest. Not locked: the owner is.
    """

    limit: int  # GSIs the kernel can route, pins included
    install: Callable[[list[tuple[int, int, int]]], None]
    _gsis: dict[MsiMessage, int] = attrs.field(factory=dict, init=False)
    _users: dict[MsiMessage, int] = attrs.field(factory=dict, init=False)
    _idle: dict[MsiMessage, None] = attrs.field(factory=dict, init=False)  # without users, the longest first
    _next: int = attrs.field(default=IOAPIC_PINS, init=False)  # the first GSI that was never used

    def acquire(self, message: MsiMessage) -> int:
        """Return the GSI of *message*, routed; each call needs a ``release``. Raises HostError."""
        if message not in self._gsis:
            self._route(message)
        self._idle.pop(message, None)
        self._users[message] = self._users.get(message, 0) + 1
        return self._gsis[message]

    def release(self, message: MsiMessage) -> None:
        """Take one use of *message* back."""
        self._users[message] -= 1
        if not self._users[message]:
            del self._users[message]
            self._idle[message] = None

    def gsi(self, message: MsiMessage) -> int:
        """Return the GSI of a *message* in use. Raises KeyError for one that is not."""
        if message not in self._users:
            raise KeyError(message)
        return self._gsis[message]

    def _route(self, message: MsiMessage) -> None:
        """Give *message* a GSI that no message has, or else the one that has been idle for longest."""
        spare = len(self._idle) > SPARE_ROUTES + len(self._users)
        if self._next < self.limit and not spare:
            self._gsis[message] = self._next
            self._install(message, None)
            self._next += 1
            return
        idle = next(iter(self._idle), None)
        if idle is None:
            hint = "fewer queues with a vector of their own"
            raise HostError(f"all {self.limit} interrupt routes of KVM are in use", err=errno.ENOSPC, hint=hint)
        self._gsis[message] = self._gsis.pop(idle)
        self._install(message, idle)
        del self._idle[idle]

    def _install(self, new: MsiMessage, instead_of: MsiMessage | None) -> None:
        try:
            self.install([(gsi, message.addr, message.data) for message, gsi in self._gsis.items()])
        except HostError:
            gsi = self._gsis.pop(new)
            if instead_of is not None:
                self._gsis[instead_of] = gsi
            raise
