"""INTx: a function's interrupt pin, the line it drives, and the choice of lines.

Level-triggered and shared (PCI Local Bus 3.0, 2.2.6): a line is asserted while any of its pins is. ``True`` means
asserted; the hypervisor knows that the pins are active low.
"""

import threading
from collections.abc import Callable

import attrs

from acrn_dm.base.irq import InterruptSink
from acrn_dm.base.records import define

FIRST_GSI = 16
PINS = 4  # INTA# .. INTD#


@define(eq=False)
class IrqLine:
    """One global system interrupt; the wired OR of its sources. Also used for ISA interrupts and the SCI."""

    gsi: int
    _sink: InterruptSink | None = attrs.field(default=None, repr=False)
    _asserted: set[object] = attrs.field(factory=set, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def connect(self, sink: InterruptSink) -> None:
        """Drive *sink* from now on."""
        self._sink = sink

    def announce(self) -> None:
        """Tell the sink the level as it is: an input that nobody drives is low, which for PCI means asserted."""
        with self._lock:
            if self._sink is not None:
                self._sink.set_irq_line(self.gsi, bool(self._asserted))

    def drive(self, source: object, asserted: bool) -> None:
        """*source* drives the line, or lets it go. The call is made under the lock, so that levels arrive in order."""
        with self._lock:
            before = bool(self._asserted)
            (self._asserted.add if asserted else self._asserted.discard)(source)
            if bool(self._asserted) != before and self._sink is not None:
                self._sink.set_irq_line(self.gsi, not before)

    def source(self) -> Callable[[bool], None]:
        """A new source of the line, as the function that sets its level."""
        token = object()
        return lambda asserted: self.drive(token, asserted)


@define(eq=False)
class IntxPin:
    """A function's pin. The level that the device wants is kept while the guest gates the pin, and comes out after."""

    number: int = 0  # 0: INTA# .. 3: INTD#
    line: IrqLine | None = None
    _wanted: bool = attrs.field(default=False, alias="wanted")
    _gated: bool = attrs.field(default=False, alias="gated")  # INTx disable set, or MSI / MSI-X on
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    @property
    def asserted(self) -> bool:
        """Whether the device asks for an interrupt: the Interrupt Status bit, which ignores the gate."""
        return self._wanted

    @property
    def gsi(self) -> int | None:
        """The global system interrupt it is routed to."""
        return None if self.line is None else self.line.gsi

    def set(self, asserted: bool) -> None:
        """The device asks for an interrupt, or does no longer. Any thread."""
        with self._lock:
            self._wanted = asserted
            self._drive()

    def gate(self, closed: bool) -> None:
        """The guest disabled the pin or uses messages (*closed*), or neither."""
        with self._lock:
            self._gated = closed
            self._drive()

    def _drive(self) -> None:
        if self.line is not None:
            self.line.drive(self, self._wanted and not self._gated)


@define(eq=False)
class IntxRouter:
    """The choice of GSIs for the pins of slots: from 16 on, one each while the IOAPIC has pins, then the least used one
    again.
    """

    ioapic_pins: int
    lines: dict[int, IrqLine] = attrs.field(factory=dict)
    _routes: dict[tuple[int, int, int], int] = attrs.field(factory=dict)  # (bus, slot, pin) -> gsi
    _pin_uses: dict[tuple[int, int], list[int]] = attrs.field(factory=dict)
    _gsi_uses: dict[int, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._gsi_uses = dict.fromkeys(range(FIRST_GSI, self.ioapic_pins), 0)
        if not self._gsi_uses:
            raise ValueError(f"an IOAPIC of {self.ioapic_pins} pins leaves none for PCI")

    def assign(self, bus: int, slot: int, pin: IntxPin) -> IrqLine:
        """Choose the least used pin of the slot and its line, and join them."""
        uses = self._pin_uses.setdefault((bus, slot), [0] * PINS)
        pin.number = uses.index(min(uses))
        uses[pin.number] += 1
        place = (bus, slot, pin.number)
        if place not in self._routes:
            self._routes[place] = min(self._gsi_uses, key=lambda gsi: (self._gsi_uses[gsi], gsi))
        gsi = self._routes[place]
        self._gsi_uses[gsi] += 1
        pin.line = self.lines.setdefault(gsi, IrqLine(gsi))
        return pin.line

    def routes(self, bus: int = 0) -> tuple[tuple[int, int, int], ...]:
        """(slot, pin 0-3, gsi) of every routed pin on *bus*, sorted: what ``_PRT`` says."""
        return tuple(sorted((slot, pin, gsi) for (b, slot, pin), gsi in self._routes.items() if b == bus))
