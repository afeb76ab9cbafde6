"""The report on a machine before it runs: the record behind ``--dry-run``. Addresses and sizes are bytes."""

from acrn_dm.base.records import frozen


@frozen(kw_only=True)
class RangeReport:
    """A stretch of guest RAM."""

    gpa: int
    size: int


@frozen(kw_only=True)
class BarReport:
    """A base address register; *kind* is ``io``, ``mem32`` or ``mem64``, *address* a port or a guest address."""

    index: int
    kind: str
    address: int
    size: int


@frozen(kw_only=True)
class DeviceReport:
    """One PCI function. *vectors* counts MSI-X entries, *gsi* is where its INTx pin arrives (None: it has none)."""

    bdf: str
    kind: str
    vendor: int
    device: int
    bars: tuple[BarReport, ...] = ()
    vectors: int = 0
    msi: bool = False
    gsi: int | None = None
    backend: str = ""  # who moves the data and where from, in words
    provider: str = ""  # the plugin that offers this kind of device


@frozen(kw_only=True)
class UartReport:
    """A serial port of the LPC bridge."""

    port: str
    io_base: int
    irq: int
    backend: str


@frozen(kw_only=True)
class MachineReport:
    """One machine; *devices* in order of bus, slot and function. *notes* are remarks of one line each."""

    name: str
    hypervisor: str
    vcpus: int
    memory: tuple[RangeReport, ...]
    boot: str = ""  # what the guest starts from, in words
    devices: tuple[DeviceReport, ...] = ()
    uarts: tuple[UartReport, ...] = ()
    notes: tuple[str, ...] = ()
