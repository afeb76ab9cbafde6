"""The strict check of drivers: what a driver must keep, and which clause of the specification it broke.

Imported for the devices whose drivers are checked (``strict=on``), by these two functions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from acrn_dm.base.bus import Handler

if TYPE_CHECKING:
    from acrn_dm.virtio.core import VirtioCore
    from acrn_dm.virtio.strict.report import StrictReport


def strict_report(name: str) -> "StrictReport":
    """What the driver of the device *name* breaks is told here."""
    from acrn_dm.virtio.strict.report import StrictReport  # noqa: PLC0415

    return StrictReport(name)


def watched_bar(
    bar: Handler, core: "VirtioCore", report: "StrictReport", msix_enabled: Callable[[], bool], *, legacy: bool
) -> Handler:
    """The register structures of *bar* behind the rules for their driver."""
    from acrn_dm.virtio.strict.bars import StrictLegacyBar, StrictModernBar  # noqa: PLC0415
    from acrn_dm.virtio.strict.registers import RegisterRules  # noqa: PLC0415

    rules = RegisterRules(core, report, msix_enabled, legacy=legacy)
    return StrictLegacyBar(bar, rules) if legacy else StrictModernBar(bar, rules)
