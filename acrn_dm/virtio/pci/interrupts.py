"""Interrupts of a virtio PCI function that do not go by a queue's own vector: ISR status, the pin, MSI, configuration
changes.

Spec 4.1.4.5 and 4.1.5.1.2: while MSI-X is enabled, vectors are the only way and NO_VECTOR means no interrupt; without
it, every interrupt sets a bit of the ISR status first, which the pin follows until the driver reads it.
"""

import threading

from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.defs import Isr


class Interrupts:
    """The ISR byte and what hangs on it. Any thread; its lock is a leaf above those of the pin and the vectors."""

    def __init__(self, function: PciFunction) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._isr = 0

    @property
    def msix_enabled(self) -> bool:
        """Whether vectors are in use."""
        return self._function.msix is not None and self._function.msix.enabled

    def queue_without_msix(self) -> None:
        """A used buffer notification while MSI-X is disabled."""
        with self._lock:
            self._isr |= Isr.QUEUE
            self._notify()

    def config_changed(self, vector: int) -> None:
        """A configuration change notification. The ISR bit is set in every mode (4.1.4.5.1)."""
        with self._lock:
            self._isr |= Isr.CONFIG
            if not self.msix_enabled:
                self._notify()
            elif self._function.msix is not None:
                self._function.msix.raise_vector(vector)

    def read_isr(self) -> int:
        """Return the ISR byte, clear it and release the pin."""
        with self._lock:
            value, self._isr = self._isr, 0
            self._drive()
            return value

    def mode_changed(self) -> None:
        """MSI-X or MSI was enabled or disabled: the pin shows the ISR byte only without MSI-X."""
        with self._lock:
            self._drive()

    def clear(self) -> None:
        """Reset: nothing that happened before reaches the driver any more."""
        with self._lock:
            self._isr = 0
            self._drive()
            for vectors in (self._function.msix, self._function.msi):
                if vectors is not None:
                    for vector in range(vectors.vectors):
                        vectors.clear_pending(vector)

    def _notify(self) -> None:
        self._drive()
        if self._function.msi is not None and self._function.msi.enabled:
            self._function.msi.raise_()

    def _drive(self) -> None:
        if self._function.intx is not None:
            self._function.intx.set(self._isr != 0 and not self.msix_enabled)
