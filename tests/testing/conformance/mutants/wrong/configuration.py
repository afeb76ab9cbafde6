"""Devices that are wrong about their configuration space."""

from collections.abc import Sequence
from typing import ClassVar

from acrn_dm import Queue
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Right


@breaks("dm.config_length")
class ReturnsOneByteOfEight(Right):
    """Returns one byte, however many are asked for."""

    def read_config(self, offset: int, size: int) -> bytes:
        return super().read_config(offset, size)[:1]


@breaks("dm.config_length")
class ReturnsTooMuch(Right):
    """Returns everything from the offset on."""

    def read_config(self, offset: int, size: int) -> bytes:
        return super().read_config(offset, 12)


@breaks("dm.exception", "config.read_before_features_ok")
class RaisesInReadConfig(Right):
    """Raises when its configuration is read."""

    def read_config(self, offset: int, size: int) -> bytes:
        raise KeyError(offset)


@breaks("dm.exception")
class RaisesInWriteConfig(Right):
    """Raises when its configuration is written."""

    def write_config(self, offset: int, data: bytes) -> None:
        raise KeyError(offset)


@breaks("dm.exception")
class RaisesForALongWrite(Right):
    """Raises for a write that is wider than the field it expects."""

    def write_config(self, offset: int, data: bytes) -> None:
        (byte,) = data
        super().write_config(offset, bytes([byte]))


@breaks("dm.instance_state")
class SharesItsConfiguration(Right):
    """Keeps its configuration in a class attribute."""

    all_noted: ClassVar[bytearray] = bytearray(4)

    def write_config(self, offset: int, data: bytes) -> None:
        super().write_config(offset, data)
        SharesItsConfiguration.all_noted[:] = self.noted

    def read_config(self, offset: int, size: int) -> bytes:
        return bytes(self.shown + self.all_noted)[offset : offset + size]

    def reset(self) -> None:
        super().reset()
        SharesItsConfiguration.all_noted[:] = self.noted


@breaks("config.read_before_features_ok", "config.read_conditional_if_offered")
class HidesItUntilFeaturesOk(Right):
    """Shows zeroes until features are negotiated."""

    def read_config(self, offset: int, size: int) -> bytes:
        return super().read_config(offset, size) if self.function.core.status & 8 else bytes(size)


@breaks("config.read_before_features_ok", "config.read_conditional_if_offered", "dm.exception")
class FailsBeforeFeaturesOk(Right):
    """Refuses to show its configuration before features are negotiated."""

    def read_config(self, offset: int, size: int) -> bytes:
        if not self.function.core.status & 8:
            raise RuntimeError("not yet")
        return super().read_config(offset, size)


@breaks("d.cfg.generation", "pci.common.config_generation")
class NeverCountsChanges(Right):
    """Changes its configuration under the generation that it had."""

    def realize(self, resources: object) -> None:
        super().realize(resources)  # type: ignore[arg-type]
        self.function.core._advance_generation = lambda: None


@breaks("d.cfg.change_notify", "d.pci.msix_config", "d.pci.intx_config")
class ChangesWithoutAWord(Right):
    """Counts its changes and does not interrupt for them."""

    def config_changed(self) -> None:
        self.function.core.bump_generation()


@breaks("dm.start_quiet")
class AnnouncesAChangeAtStart(Right):
    """Says at DRIVER_OK that its configuration changed."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        self.config_changed()


@breaks("dm.restart")
class KeepsWhatTheDriverWrote(Right):
    """Keeps over a reset what a driver wrote into its configuration."""

    def reset(self) -> None:
        """Nothing is forgotten."""


@breaks("pci.isr.config_bit", "d.pci.isr_bits")
class ForgetsTheIsrBit(Right):
    """Interrupts for a change without the ISR's bit for it."""

    def realize(self, resources: object) -> None:
        super().realize(resources)  # type: ignore[arg-type]
        function = self.function
        real = function.interrupts.config_changed

        def config_changed(vector: int) -> None:
            real(vector)
            function.interrupts._isr &= ~2

        function.interrupts.config_changed = config_changed


@breaks("pci.cfg_notify.no_vector")
class AnnouncesWithoutAVector(Right):
    """Interrupts on the last vector for a change where the driver has mapped changes to none."""

    def realize(self, resources: object) -> None:
        super().realize(resources)  # type: ignore[arg-type]
        function = self.function
        real = function.interrupts.config_changed
        function.interrupts.config_changed = lambda v: real(function.msix.vectors - 1 if v == 0xFFFF else v)
