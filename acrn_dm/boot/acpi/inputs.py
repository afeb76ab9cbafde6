"""The facts about a machine that its ACPI tables tell."""

import re

import attrs

from acrn_dm.base import address_map as layout
from acrn_dm.base.records import frozen
from acrn_dm.contract.processors import ProcessorPower

MAX_GSIS = 240  # what one IOAPIC can have; KVM's has 24, ACRN's 48


@frozen(kw_only=True)
class AcpiInputs:
    """Facts about one machine; inconsistent ones are a bug of the caller (ValueError).

    ``apic_ids`` one local APIC id a vCPU, the boot processor first.
    ``prt`` PCI interrupt routing of bus 0: (slot, pin 0-3 for INTA-INTD, gsi); level, active low.
    ``uarts`` serial ports: (name such as ``COM1``, first of 8 ports, ISA interrupt).
    ``last_bus`` the last bus that exists: a guest probes every function of every announced bus, 8,192 of them at 255.
    ``pm_timer_port`` port of the 3.58 MHz, 32-bit timer, None without one.
    ``power`` performance and idle states, one record a vCPU; empty without any.
    ``rtc`` a CMOS clock at 0x70. ``s3`` suspend to RAM is offered.
    """

    apic_ids: tuple[int, ...]
    power: tuple[ProcessorPower, ...] = ()
    prt: tuple[tuple[int, int, int], ...] = ()
    uarts: tuple[tuple[str, int, int], ...] = ()
    ecam_base: int = attrs.field(default=layout.ECAM_BASE, repr=hex)
    last_bus: int = 0
    mmio32: tuple[int, int] = (layout.PCI_MMIO32_BASE, layout.PCI_MMIO32_END - 1)  # first and last address
    mmio64: tuple[int, int] = (layout.PCI_MMIO64_BASE, layout.PCI_MMIO64_END - 1)
    pm_timer_port: int | None = None
    rtc: bool = True
    s3: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.apic_ids or len(set(self.apic_ids)) != len(self.apic_ids):
            raise ValueError(f"APIC ids have to be there and unique: {self.apic_ids}")
        if self.power and len(self.power) != len(self.apic_ids):
            raise ValueError(f"power states of {len(self.power)} processors for {len(self.apic_ids)}")
        if not 0 <= self.last_bus < layout.ECAM_MAX_BUSES:
            raise ValueError(f"last PCI bus {self.last_bus}")
        self._check_prt()
        names = [name for name, _, _ in self.uarts]
        if len(set(names)) != len(names) or not all(re.fullmatch(r"[A-Z][A-Z0-9]{3}", n) for n in names):
            raise ValueError(f"serial port names have to be unique and like COM1: {names}")

    def _check_prt(self) -> None:
        for slot, pin, gsi in self.prt:
            if not (0 <= slot < 32 and 0 <= pin < 4 and 0 <= gsi < MAX_GSIS):
                raise ValueError(f"PCI interrupt routing: slot {slot} pin {pin} GSI {gsi}")
        pins = [(slot, pin) for slot, pin, _ in self.prt]
        if len(set(pins)) != len(pins):
            raise ValueError("PCI interrupt routing names a pin twice")
