"""The dispatch of a vCPU's exits to devices: the only code between the hypervisor and the buses.

A device that raises is that device's trouble: the access reads as all ones or is dropped, the vCPU goes on, and the
log says so at a bounded rate, because a guest can make it happen as often as it likes.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from acrn_dm.base.bus import Bus
from acrn_dm.base.errors import AcrnDmError
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import VmEvent

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0


class ConfigSpaces(Protocol):
    """The receiver of decoded configuration accesses: ``pci.bus.PciBus``."""

    def read(self, number: int, reg: int, size: int) -> int:
        """Read; *number* is bus << 8 | device << 3 | function."""

    def write(self, number: int, reg: int, size: int, value: int) -> None:
        """Write."""

    def title(self, number: int) -> str:
        """The function in words: device, plugin, place."""


@define(eq=False)
class MachineDispatch:
    """A machine's ``contract.hypervisor.Dispatch``, over its two buses. Called on vCPU threads, several at a time."""

    pio: Bus
    mmio: Bus
    config: ConfigSpaces
    on_event: Callable[[VmEvent, str], None]
    must_wait: Callable[[], bool] = lambda: False  # for the reset, or the sleep, that was asked for
    errors: int = 0
    _next_report: float = 0.0

    def pio_read(self, port: int, size: int) -> int:
        """IN."""
        return self._read(self.pio, port, size)

    def pio_write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self._write(self.pio, port, size, value)

    def mmio_read(self, gpa: int, size: int) -> int:
        """Load."""
        return self._read(self.mmio, gpa, size)

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """Store."""
        self._write(self.mmio, gpa, size, value)

    def pci_config_read(self, function: int, register: int, size: int) -> int:
        """Configuration read."""
        try:
            return self.config.read(function, register, size)
        except Exception as e:
            self._report(f"reading {size} bytes at register {register:#x} of {self.config.title(function)}", e)
            return (1 << (8 * size)) - 1

    def pci_config_write(self, function: int, register: int, size: int, value: int) -> None:
        """Configuration write."""
        try:
            self.config.write(function, register, size, value)
        except Exception as e:
            self._report(f"writing {size} bytes at register {register:#x} of {self.config.title(function)}", e)

    def vcpu_must_wait(self) -> bool:
        """Whether the vCPU that was just answered may not run on."""
        return self.must_wait()

    def vm_event(self, event: VmEvent, detail: str) -> None:
        """A vCPU can't go on."""
        self.on_event(event, detail)

    def _read(self, bus: Bus, addr: int, size: int) -> int:
        try:
            return bus.read(addr, size)
        except Exception as e:
            self._report(f"reading {size} bytes at {_place(bus, addr, size)}", e)
            return (1 << (8 * size)) - 1

    def _write(self, bus: Bus, addr: int, size: int, value: int) -> None:
        try:
            bus.write(addr, size, value)
        except Exception as e:
            self._report(f"writing {size} bytes at {_place(bus, addr, size)}", e)

    def _report(self, what: str, error: Exception) -> None:
        self.errors += 1
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            trace = None if isinstance(error, AcrnDmError) else error
            log.error("guest access failed (%d so far): %s: %s", self.errors, what, error, exc_info=trace)


def _place(bus: Bus, addr: int, size: int) -> str:
    """Where an access went: the address, and the device that answers there."""
    found = bus.find(addr, size)
    if found is None:  # it went away meanwhile
        return f"{bus.name} {addr:#x}"
    claimed, offset = found
    holder = getattr(claimed.handler, "holder", None)  # one window of several devices
    inside = f": {holder(offset)}" if holder is not None else f"+{offset:#x}"
    return f"{bus.name} {addr:#x} ({claimed.name}{inside})"
