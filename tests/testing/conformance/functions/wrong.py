"""PCI functions that are wrong, each in the way of one row: the right one with a fault."""

import os
from collections.abc import Callable

from acrn_dm import BarKind, MsiMessage, PciFunction, Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.pci import config_space as cs
from acrn_dm.pci.msix import PBA_ALIGNMENT
from tests.testing.conformance.mutants.right_function import PATTERN, RightFunction, RightMsix
from tests.testing.conformance.mutants.wrong import functions as others

Make = Callable[[DeviceContext], PciFunction]


def _registers(*defined: tuple[int, int, int, int], base: type[RightFunction] = RightFunction) -> Make:
    """The right function with these registers laid out otherwise: offset, size, value, writable."""

    class Otherwise(base):  # type: ignore[misc, valid-type]
        def __init__(self, context: DeviceContext) -> None:
            super().__init__(context)
            for at, size, value, writable in defined:
                self.config.define(at, size, value, writable)

    return Otherwise


def _shows(at: int, value: int) -> Make:
    """The right function with another byte at *at* than the bus put there."""

    class Shows(RightFunction):
        def config_read(self, offset: int, size: int) -> int:
            return value if (offset, size) == (at, 1) else super().config_read(offset, size)

    return Shows


class WideIo(RightFunction):
    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.add_bar(3, 512, BarKind.IO, self)


class ReadsBytesAsZero(RightFunction):
    def config_read(self, offset: int, size: int) -> int:
        return 0 if size == 1 and offset == 8 else super().config_read(offset, size)


class HidesItsList(RightFunction):
    def config_read(self, offset: int, size: int) -> int:
        value = super().config_read(offset, size)
        return value & ~0x10 if offset == 6 else value


class Silent(RightFunction):
    def interrupt(self) -> None:
        pass


class NeverServed(RightFunction):
    def acknowledged(self) -> None:
        pass


class PinAndMessage(RightFunction):
    def interrupt(self) -> None:
        super().interrupt()
        assert self.intx is not None
        self.intx._gated = False
        self.intx.set(True)


class Several(RightFunction):
    """Two messages, of which it sends a third."""

    extra = 4

    def lay_out(self) -> None:
        super().lay_out()
        at = self._msi_capability
        self.config.define(at + 2, 2, 0x0182, writable=0x71)

    def interrupt(self) -> None:
        assert self.msi is not None
        message = self.msi.message(0)
        if message is not None:
            self.resources.interrupts.inject_msi(MsiMessage(addr=message.addr, data=message.data + self.extra))


class UnmaskedAtFirst(RightMsix):
    def lay_out(self) -> None:
        super().lay_out()
        assert self.msix is not None
        for entry in self.msix._entries:
            entry.words[3] = 0


class TableOutside(RightMsix):
    def lay_out(self) -> None:
        super().lay_out()
        self.config.define(self._msix_control + 2, 4, 2 * PBA_ALIGNMENT | 4)


class PendingWritable(RightMsix):
    def lay_out(self) -> None:
        super().lay_out()
        assert self.msix is not None
        msix, write = self.msix, self.msix.write

        class Handler:
            def read(self, offset: int, size: int) -> int:
                return msix.read(offset, size)

            def write(self, offset: int, size: int, value: int) -> None:
                if offset >= PBA_ALIGNMENT:
                    msix._pending = value
                else:
                    write(offset, size, value)

        self.bars[4].handler = Handler()


class OldData(RightMsix):
    """Sends what the table held at first."""

    kept: MsiMessage | None = None

    def interrupt(self) -> None:
        assert self.msix is not None
        self.kept = self.kept or self.msix.message(1)
        if self.kept is not None:
            self.resources.interrupts.inject_msi(self.kept)


class PastTheFunctionMask(RightMsix):
    def interrupt(self) -> None:
        assert self.msix is not None
        low, high, data, masked = self.msix._entries[1].words
        if not masked:
            self.resources.interrupts.inject_msi(MsiMessage(addr=high << 32 | low, data=data))


class WritesTooMuch(RightFunction):
    def fill(self) -> None:
        self.resources.memory.write(self.address, bytes([PATTERN]) * (self.length + 8))


class LeavesAFile(RightFunction):
    def realize(self, resources: Resources) -> None:
        super().realize(resources)
        leaked.append(os.eventfd(0))


leaked: list[int] = []

WRONG: dict[str, Make] = {
    "pcifn.ids": _registers((cs.VENDOR_ID, 4, 0x11E8_0000, 0)),
    "pcifn.header": _shows(cs.HEADER_TYPE, 1),
    "pcifn.readonly": others.LetsItsIdBeWritten,
    "pcifn.reserved": _registers((0x38, 4, 0, 0xFFFF)),
    "pcifn.command": _registers((cs.COMMAND, 2, 7, 0xFFFF)),
    "pcifn.status": _registers((cs.STATUS, 2, 0x10, 0x20)),
    "pcifn.caps": others.CapabilitiesGoRoundInCircles,
    "pcifn.caps.status": HidesItsList,
    "pcifn.config.width": ReadsBytesAsZero,
    "pcifn.irq.line": _registers((cs.INTERRUPT_LINE, 1, 0xFF, 0x0F)),
    "pcifn.irq.pin": _shows(cs.INTERRUPT_PIN, 5),
    "pcifn.bar.size": others.HasAnOddSize,
    "pcifn.bar.io_limit": WideIo,
    "pcifn.bar.type": others.ChangesTheKindOfItsBar,
    "pcifn.bar.move": others.StaysWhereItWas,
    "pcifn.bar.access": others.RaisesForAByte,
    "pcifn.decode": others.AnswersWithDecodingOff,
    "pcifn.intx.raise": Silent,
    "pcifn.intx.release": NeverServed,
    "pcifn.intx.status": others.DoesNotSayThatItInterrupts,
    "pcifn.intx.disable": others.PullsAPinThatIsOff,
    "pcifn.intx.message": PinAndMessage,
    "pcifn.intx.reset": others.HoldsThePinOverAReset,
    "pcifn.msi.off": _registers((cs.FIRST_CAPABILITY + 2, 2, 0x0181, 0x1)),
    "pcifn.msi.caps": _registers((cs.FIRST_CAPABILITY + 2, 2, 0x0180, 0x000F)),
    "pcifn.msi.data": others.SendsOtherData,
    "pcifn.msi.mask": others.SendsThoughMasked,
    "pcifn.msi.multiple": Several,
    "pcifn.msix.off": UnmaskedAtFirst,
    "pcifn.msix.caps": TableOutside,
    "pcifn.msix.table": others.HasLessTableThanItSays,
    "pcifn.msix.pba": PendingWritable,
    "pcifn.msix.data": OldData,
    "pcifn.msix.mask": others.SendsThroughTheMask,
    "pcifn.msix.function_mask": PastTheFunctionMask,
    "pcifn.reset": others.IsNotReset,
    "pcifn.state": others.SharesItsRegisters,
    "pcifn.leak": LeavesAFile,
    "pcifn.dma.data": WritesTooMuch,
    "pcifn.dma.master": others.MovesDataUnasked,
    "pcifn.dma.bounds": others.RaisesPastTheEndOfMemory,
}
