"""Triple faults: whether one means that the guest can't run, or that it wants to be reset.

x86 resets at a triple fault, and guests use that (Linux: ``reboot=t``). One that has it right after its start can't run
here, and would have it for ever. So within ``EARLY_S`` of the start it ends the machine with an error; later it is a
reset.

ACRN writes S5 into PM1 control for a guest that has one (triple_fault_shutdown_vm in its hypervisor); its own kernel
tells it apart by an event besides, Linux's does not. An operating system that has switched ACPI on preserves SCI_EN in
that register (ACPI 6.5, 4.8.3.2.1), and the hypervisor's write does not have it. Where ACPI is off, a power-off is one,
but for one right after the start.
"""

import logging
import time
from collections.abc import Callable

from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import VmEvent

log = logging.getLogger(__name__)

EARLY_S = 1.0


@define(eq=False)
class TripleFaults:
    """One machine's, told of each start of its guest. Any thread."""

    clock: Callable[[], float] = time.monotonic
    _started_at: float = 0.0
    _happened: bool = False

    def started(self) -> None:
        """The guest runs its first instruction now."""
        self._started_at, self._happened = self.clock(), False

    def failure(self, event: VmEvent, detail: str) -> str | None:
        """What is to be said of a vCPU that can't go on; None for a triple fault that is a reset."""
        what = event.value
        if event is VmEvent.TRIPLE_FAULT:
            self._happened = True
            after = self.clock() - self._started_at
            if after >= EARLY_S:
                log.warning("triple fault: the guest is reset")
                return None
            what = f"{what} {after * 1000:.0f} ms after its start"
        return f"{what}: {detail}" if detail else what

    def in_disguise(self, acpi_on: bool, sci_kept: bool) -> bool:
        """Whether a write of S5 was one, on a hypervisor that writes S5 for them."""
        if self._happened:
            return True
        return not sci_kept or (not acpi_on and self.clock() - self._started_at < EARLY_S)
