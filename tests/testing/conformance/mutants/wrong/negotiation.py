"""Devices that are wrong about features, the status, and the legacy interface."""

from collections.abc import Sequence
from typing import Any

from acrn_dm import Queue
from acrn_dm.virtio.core import VirtioCore
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Right

VERSION_1 = 1 << 32


class _Offers(Right):
    """Offers what ``offer`` makes of what is right, as a backend could."""

    def offer(self, offered: int) -> int:
        raise NotImplementedError

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.function.data_plane.backend.offer = self.offer


@breaks("feat.no_unsupported_bits")
class OffersAReservedBit(_Offers):
    """Offers bit 44, which nobody has defined."""

    def offer(self, offered: int) -> int:
        return offered | 1 << 44


@breaks("rsvd.version_1.offer")
class IsNotOfThisVersion(_Offers):
    """Does not offer VERSION_1."""

    def offer(self, offered: int) -> int:
        return offered & ~VERSION_1


@breaks("rsvd.sriov.absent")
class OffersVirtualFunctions(_Offers):
    """Offers SR_IOV without the capability for it."""

    def offer(self, offered: int) -> int:
        return offered | 1 << 37


@breaks("feat.accept_valid_subset")
class WantsAllItsFeatures(Right):
    """Refuses a driver that does not accept both of its features."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if features & 3 != 3:
            raise RuntimeError("both, please")
        super().start(features, queues)


@breaks("feat.accept_valid_subset")
class WantsIndirectDescriptors(Right):
    """Refuses a driver that did not accept INDIRECT_DESC."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if not features >> 28 & 1:
            raise RuntimeError("no indirect descriptors")
        super().start(features, queues)


class _Core(Right):
    """Stands on registers of its own, ``core_class``."""

    core_class: type[VirtioCore]

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.function.core.__class__ = self.core_class


def _with(**methods: Any) -> type[VirtioCore]:
    return type("WrongCore", (VirtioCore,), methods)


@breaks("feat.reject_bad_subset")
class AcceptsWhatItNeverOffered(_Core):
    """Sets FEATURES_OK for whatever the driver accepts."""

    core_class = _with(_features_ok=lambda self: True)


@breaks("feat.reject_bad_subset")
class RefusesInWordsOnly(_Core):
    """Sets FEATURES_OK in a second try, after having refused the same bits."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.asked = 0

    def again(self: Any) -> bool:
        self.tries = getattr(self, "tries", 0) + 1
        return bool(self.tries % 2 == 0 or VirtioCore._features_ok(self))

    core_class = _with(_features_ok=again)


def _consumes(core: VirtioCore, queue: int, *, legacy: bool = False) -> None:
    if not core.running and not legacy:
        core._run(legacy=False)
    VirtioCore.notify(core, queue, legacy=legacy)


@breaks("status.no_consume_before_driver_ok")
class BeginsAtTheFirstKick(_Core):
    """Takes chains as soon as it is kicked, DRIVER_OK or not."""

    core_class = _with(notify=_consumes)


def _interrupts(core: Any, queue: int, *, legacy: bool = False) -> None:
    if not core.running and not legacy and queue < len(core.queues):
        core.host.msix.raise_vector(core.queues[queue].vector)
        core.host.interrupts.queue_without_msix()
    VirtioCore.notify(core, queue, legacy=legacy)


@breaks("status.no_used_notify_before_driver_ok")
class InterruptsBeforeDriverOk(_Core):
    """Interrupts for a kick that came before DRIVER_OK."""

    core_class = _with(notify=_interrupts)


@breaks("legacy.feat.any_layout")
class OffersNoLayout(_Core):
    """Does not offer ANY_LAYOUT to a legacy driver."""

    core_class = _with(legacy_offered=property(lambda self: self.offered & 0xFFFF_FFFF))


@breaks("legacy.init.use_before_driver_ok")
class WaitsForDriverOk(_Core):
    """Leaves a legacy driver waiting that kicks before DRIVER_OK."""

    core_class = _with(_may_start_early=property(lambda self: False))


@breaks("dm.exception", "legacy.detect_driver", "feat.accept_valid_subset")
class KnowsNoLegacyDriver(Right):
    """Fails under a driver without VERSION_1, although it has the legacy interface."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if not features & VERSION_1:
            raise RuntimeError("too old")
        super().start(features, queues)


@breaks("dm.exception")
class RaisesForALegacyWrite(Right):
    """Raises when a legacy driver writes its configuration."""

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        raise KeyError(offset)


@breaks("d.status.initial0", "reset.status_zero")
class BeginsInTheMiddle(Right):
    """Shows ACKNOWLEDGE before any driver was there."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.function.core.status = 1


@breaks("pci.msix.readback", "pci.msix.fail_report", "pci.msix.no_spurious_fail")
class HasTooFewVectors(Right):
    """Has one vector, which all events map to without saying so."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        core: Any = self.function.core
        core._vector = lambda value: 0 if value != 0xFFFF else value


@breaks("rsvd.access_platform.required")
class NeedsAPlatformThatNobodyPromised(Right):
    """Is deaf to a driver that does not accept ACCESS_PLATFORM, which it does not tell when features are negotiated."""

    def handle_queue(self, queue: Queue) -> None:
        if self.negotiated_features >> 33 & 1:
            super().handle_queue(queue)
