"""The PIRQ router of an ICH-like LPC bridge: eight links, each to one ISA IRQ or to none.

Interrupts are delivered through the IOAPIC; the links say what firmware and drivers without one would find: the
Interrupt Line register of each function and the registers 0x60-0x63 and 0x68-0x6B of the LPC bridge.
"""

import attrs

from acrn_dm.base.records import define

LINKS = 8
DISABLED = 0x80
IRQ_MASK = 0x0F
# Links get one of these; the serial ports do not share 3 and 4, and 9 is the SCI's.
CHOICE = (10, 11, 5, 6, 7, 12, 14, 15)


@define(eq=False)
class PirqRouter:
    """``registers`` holds one byte a link: bit 7 disabled, bits 3:0 the IRQ."""

    registers: list[int] = attrs.field(factory=lambda: [DISABLED] * LINKS)
    _link_uses: list[int] = attrs.field(factory=lambda: [0] * LINKS)

    def allocate(self) -> int:
        """Give the least used link to one more pin, and the link an IRQ if it has none; return the IRQ."""
        link = self._link_uses.index(min(self._link_uses))
        self._link_uses[link] += 1
        self.registers[link] = CHOICE[link]
        return CHOICE[link]
