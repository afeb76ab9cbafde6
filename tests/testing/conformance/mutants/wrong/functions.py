"""PCI functions that are wrong, and no virtio devices."""

import os

from acrn_dm import MsiMessage
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right_function import MAX_LENGTH, PATTERN, SIZE, RightFunction, RightMsix

BAR0, BAR1, COMMAND, CAPABILITIES = 0x10, 0x14, 0x04, 0x34


@breaks("pcifn.bar.size", how="pci")
class HasAnOddSize(RightFunction):
    """Shows a size that is no power of two when BAR 0 is sized."""

    def config_read(self, offset: int, size: int) -> int:
        value = super().config_read(offset, size)
        if (offset, size) == (BAR0, 4) and value >> 8 == 0xFFFFFF:
            return value & ~0x1000
        return value


@breaks("pcifn.bar.type", how="pci")
class ChangesTheKindOfItsBar(RightFunction):
    """Lets the guest write BAR 0's type bits."""

    kind = 0

    def config_write(self, offset: int, size: int, value: int) -> None:
        super().config_write(offset, size, value)
        if offset == BAR0:
            self.kind = value & 0xF

    def config_read(self, offset: int, size: int) -> int:
        return super().config_read(offset, size) | (self.kind & 0x8 if offset == BAR0 else 0)


@breaks("pcifn.bar.move", how="pci")
class StaysWhereItWas(RightFunction):
    """Takes a new address for BAR 0 and goes on answering at the old one."""

    def config_write(self, offset: int, size: int, value: int) -> None:
        if offset == BAR0 and value != 0xFFFFFFFF:
            self.config.set(BAR0, 4, value & -SIZE)
            return
        super().config_write(offset, size, value)


@breaks("pcifn.decode", how="pci")
class AnswersWithDecodingOff(RightFunction):
    """Answers in memory, whatever the command register says."""

    @property
    def memory_enabled(self) -> bool:
        return True


@breaks("pcifn.caps", how="pci")
class CapabilitiesGoRoundInCircles(RightFunction):
    """Has a capability list that ends where it began."""

    def lay_out(self) -> None:
        super().lay_out()
        self.config.set_power_on(self._last_capability + 1, 1, self._last_capability)


@breaks("pcifn.caps", how="pci")
class CapabilitiesAreMisaligned(RightFunction):
    """Has a capability inside the header."""

    def lay_out(self) -> None:
        super().lay_out()
        self.config.set_power_on(self._last_capability + 1, 1, 0x3E)


@breaks("pcifn.readonly", how="pci")
class LetsItsIdBeWritten(RightFunction):
    """Lets the guest write the vendor id."""

    def lay_out(self) -> None:
        super().lay_out()
        self.config.define(0, 2, 0x1234, writable=0xFFFF)


class _Sends(RightFunction):
    def interrupt(self) -> None:
        if self.msi is not None and self.msi.enabled:
            self.send()
        else:
            super().interrupt()

    def send(self) -> None:
        raise NotImplementedError


@breaks("pcifn.msi.data", how="pci")
class SendsOtherData(_Sends):
    """Sends MSI data that the driver did not write."""

    def send(self) -> None:
        assert self.msi is not None
        message = self.msi.message(0)
        if message is not None:
            self.resources.interrupts.inject_msi(MsiMessage(addr=message.addr, data=message.data + 1))


@breaks("pcifn.msi.mask", how="pci")
class SendsThoughMasked(_Sends):
    """Sends a message that is masked."""

    def send(self) -> None:
        at = self._msi_capability
        addr, data = self.config.read(at + 4, 8), self.config.read(at + 12, 2)
        self.resources.interrupts.inject_msi(MsiMessage(addr=addr, data=data))


@breaks("pcifn.intx.disable", how="pci")
class PullsAPinThatIsOff(RightFunction):
    """Pulls its pin although INTx disable is set."""

    def interrupts_changed(self) -> None:
        assert self.intx is not None
        self.intx.gate(False)


@breaks("pcifn.intx.reset", how="pci")
class HoldsThePinOverAReset(RightFunction):
    """Leaves its pin pulled over a reset."""

    def reset(self) -> None:
        assert self.intx is not None
        pulled = self.intx.asserted
        super().reset()
        self.intx.set(pulled)


@breaks("pcifn.intx.status", how="pci")
class DoesNotSayThatItInterrupts(RightFunction):
    """Leaves the Interrupt Status bit at 0."""

    def config_read(self, offset: int, size: int) -> int:
        value = super().config_read(offset, size)
        return value & ~8 if offset == 6 else value & ~(8 << 16) if offset == 4 and size == 4 else value


@breaks("pcifn.dma.master", how="pci")
class MovesDataUnasked(RightFunction):
    """Writes guest memory with bus mastering off."""

    @property
    def bus_master(self) -> bool:
        return True


@breaks("pcifn.dma.bounds", "dm.exception", how="pci")
class RaisesPastTheEndOfMemory(RightFunction):
    """Raises ValueError where the guest lets it write past its memory."""

    def fill(self) -> None:
        if self.bus_master:
            if self.address + min(self.length, MAX_LENGTH) > 16 << 20:
                raise ValueError(hex(self.address))
            self.resources.memory.write(self.address, bytes([PATTERN]) * min(self.length, MAX_LENGTH))


@breaks("dm.exception", "pcifn.bar.access", how="pci")
class RaisesForAByte(RightFunction):
    """Raises for an access that is not four bytes wide."""

    def read(self, offset: int, size: int) -> int:
        if size != 4:
            raise KeyError(size)
        return super().read(offset, size)


@breaks("dm.exception", "pcifn.bar.access", how="pci")
class RaisesForAWrite(RightFunction):
    """Raises for a write to a register that it does not have."""

    def write(self, offset: int, size: int, value: int) -> None:
        if offset > 0x18:
            raise KeyError(offset)
        super().write(offset, size, value)


@breaks("pcifn.reset", how="pci")
class RemembersOverAReset(RightFunction):
    """Keeps its registers over a reset."""

    def clear(self) -> None:
        if not hasattr(self, "kept"):
            super().clear()


@breaks("pcifn.reset", how="pci")
class IsNotReset(RightFunction):
    """Takes a reset for its own registers' only: configuration space and BARs stay."""

    def reset(self) -> None:
        self.clear()


@breaks("pcifn.leak", how="pci")
class LeavesADescriptor(RightFunction):
    """Opens a file in the host and closes it never."""

    def realize(self, resources: object) -> None:
        super().realize(resources)  # type: ignore[arg-type]
        os.eventfd(0)


@breaks("pcifn.state", how="pci")
class SharesItsRegisters(RightFunction):
    """Keeps a register in a class attribute."""

    shared = 0

    def read(self, offset: int, size: int) -> int:
        return SharesItsRegisters.shared if (offset, size) == (0, 4) else super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (0, 4):
            SharesItsRegisters.shared = value
        super().write(offset, size, value)

    def clear(self) -> None:
        super().clear()
        SharesItsRegisters.shared = 0


@breaks("pcifn.msix.mask", how="pci msix")
class SendsThroughTheMask(RightMsix):
    """Sends the message of a vector that is masked."""

    def interrupt(self) -> None:
        assert self.msix is not None
        if self.msix.enabled:
            low, high, data, _ = self.msix._entries[1].words
            self.resources.interrupts.inject_msi(MsiMessage(addr=high << 32 | low, data=data))
        else:
            super().interrupt()


@breaks("pcifn.msix.table", "pcifn.msix.caps", how="pci msix")
class HasLessTableThanItSays(RightMsix):
    """Says that its table has more vectors than it keeps."""

    def lay_out(self) -> None:
        super().lay_out()
        at = self._msix_control
        self.config.define(at, 2, 15, writable=0xC000)
