"""A PCI function: the base of every device on the bus, also of plugins'.

A subclass lays itself out in ``__init__`` (BARs, capabilities, interrupts) and overrides what differs. The lock is
held around every method that the guest or the machine causes; code on an I/O loop never takes it (it may use
``msix.raise_vector``, ``intx.set`` and ``IoLoop.call_soon``).
"""

import threading
from typing import ClassVar

from acrn_dm.base.bus import Bus, Handler
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.pci import config_space as cs
from acrn_dm.pci import msi, msix
from acrn_dm.pci.bar import COUNT, Bar, BarKind, BarWindow, round_up_size
from acrn_dm.pci.config_space import ConfigSpace
from acrn_dm.pci.intx import IntxPin
from acrn_dm.pci.msi import Msi, MsiForm
from acrn_dm.pci.msix import Msix
from acrn_dm.pci.pirq import PirqRouter

ALL_ONES = 0xFFFF_FFFF


class PciFunction:
    """One function and its registers. Addresses, interrupt line and resources come from ``PciBus``; ``realize`` opens
    things.
    """

    one_only: ClassVar[bool] = False  # a second one of this class on the bus is a ConfigError

    def __init__(
        self,
        context: DeviceContext,
        *,
        vendor: int,
        device: int,
        class_code: int,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem_device: int = 0,
    ) -> None:
        """*class_code* has 24 bits: base class, subclass, interface."""
        self.context = context
        self.name = context.name
        self.lock = threading.RLock()
        self.config = ConfigSpace()
        self.bars: dict[int, Bar] = {}
        self.msix: Msix | None = None
        self.msi: Msi | None = None
        self.intx: IntxPin | None = None
        self._resources: Resources | None = None
        self._last_capability = 0
        self._free = cs.FIRST_CAPABILITY  # where the next capability goes
        self.express = False  # has the PCI Express capability, and so an extended configuration space
        self._msix_control = self._msi_capability = cs.SIZE  # offsets; SIZE: there is none
        self._interrupt_mode = (False, False, False)
        self._define_header()
        self.identify(vendor, device, revision | class_code << 8, subsystem_vendor | subsystem_device << 16)

    # Laying out: before the bus assigns addresses, or in ``complete_layout``.

    def identify(self, vendor: int, device: int, kind: int, subsystem: int) -> None:
        """Be this device: *kind* has the class code in bits 31:8 and the revision below, *subsystem* the device in bits
        31:16 and the vendor below.
        """
        self.config.define(cs.VENDOR_ID, 4, vendor | device << 16)
        self.config.define(cs.REVISION, 4, kind)
        self.config.define(cs.SUBSYSTEM_VENDOR, 4, subsystem)

    def add_bar(self, index: int, size: int, kind: BarKind, handler: Handler) -> Bar:
        """Make BAR *index* of *size* bytes, rounded up to a power of two; a 64-bit BAR takes *index* + 1 as well.

        *handler* is called with the lock held, and only for accesses of 1, 2, 4 or 8 bytes inside the BAR. Raises
        ValueError.
        """
        taken = {i + n for i, bar in self.bars.items() for n in range(len(bar.registers))}
        wanted = {index, index + 1} if kind is BarKind.MEM64 else {index}
        if wanted & taken or not wanted <= set(range(COUNT)):
            raise ValueError(f"{self.name}: BAR {index} ({kind.name}) is taken or does not exist")
        bar = Bar(index=index, size=round_up_size(size, kind), kind=kind, handler=handler)
        bar.define(self.config)
        self.bars[index] = bar
        return bar

    def add_capability(self, cap_id: int, body: bytes, writable: bytes = b"") -> int:
        """Append a capability; *body* follows id and next pointer, *writable* is the mask of bits the guest may change.

        Returns the offset of the capability's header. Raises ValueError when the configuration space is full.
        """
        at = self._free
        end = at + 2 + len(body)
        if end > cs.SIZE or len(writable) > len(body):
            raise ValueError(f"{self.name}: capability {cap_id:#x} of {len(body)} bytes does not fit")
        self.config.define(at, 2, cap_id)
        self.express |= cap_id == cs.CAP_EXPRESS
        if body:
            mask = int.from_bytes(writable, "little")
            self.config.define(at + 2, len(body), int.from_bytes(body, "little"), writable=mask)
        self.config.set_power_on(self._last_capability + 1 if self._last_capability else cs.CAPABILITIES, 1, at)
        self.config.set_power_on(cs.STATUS, 2, self.config.read(cs.STATUS, 2) | cs.STATUS_CAPABILITIES)
        self._last_capability = at
        self._free = -(-end // 4) * 4
        return at

    def add_msix(self, bar: int, vectors: int) -> Msix:
        """Offer MSI-X with *vectors* vectors; table and pending bits get 32-bit BAR number *bar* for themselves."""
        self.msix = Msix(vectors)
        self.add_bar(bar, msix.bar_size(vectors), BarKind.MEM32, self.msix)
        body = (vectors - 1).to_bytes(2, "little")
        body += bar.to_bytes(4, "little") + (msix.pba_offset(vectors) | bar).to_bytes(4, "little")
        control = (msix.CONTROL_ENABLE | msix.CONTROL_FUNCTION_MASK).to_bytes(2, "little")
        self._msix_control = self.add_capability(msix.CAPABILITY_ID, body, control) + 2
        return self.msix

    def take_msix(self, at: int, vectors: int) -> Msix:
        """Offer MSI-X with *vectors* vectors by the capability that is at *at* already; table and pending bits are
        answered by who answers the BARs that it names.
        """
        self.msix, self._msix_control = Msix(vectors), at + 2
        return self.msix

    def add_msi(self) -> Msi:
        """Offer MSI with one vector."""
        form = MsiForm()
        return self.take_msi(self.add_capability(msi.CAPABILITY_ID, form.body, form.writable), form)

    def take_msi(self, at: int, form: MsiForm) -> Msi:
        """Offer MSI by the capability of that *form* that is at *at* already."""
        self.msi, self._msi_capability = Msi(self.config, at, form), at
        return self.msi

    def use_intx(self) -> None:
        """Have an interrupt pin; the bus chooses which one and where it leads."""
        self.intx = IntxPin()

    # Overridables, called with the lock held.

    @property
    def uses_terminal(self) -> bool:
        """Whether it wants this process's standard input and output, which one device at most can have."""
        return False

    def check(self) -> list[str]:
        """Say what is missing on this host, one line each; opens and changes nothing."""
        return []

    def complete_layout(self, resources: Resources) -> bool:
        """Complete the layout by what somebody outside says, and return whether there are BARs to be placed for that;
        called once, before ``realize`` and before any BAR answers. Raises ConfigError or HostError.
        """
        return False

    def realize(self, resources: Resources) -> None:
        """Open what the device needs; called once, before the guest starts. Raises ConfigError or HostError."""

    def reset(self) -> None:
        """Power-on state: configuration space, BARs where the machine put them, no message vectors, pin released.

        An override resets its own state first and then calls this.
        """
        before = self.config.read(cs.COMMAND, 2)
        self._unmap_all()
        self.config.reset()
        for bar in self.bars.values():
            bar.restore()
        if self.msix is not None:
            self.msix.reset()
        if self.msi is not None:
            self.msi.registers_written()
        if self.intx is not None:
            self.intx.set(False)
        self._update_interrupts()
        self._update_mappings()
        if before != self.config.read(cs.COMMAND, 2):
            self.command_changed()

    def quiesce(self) -> bool:
        """The guest is gone: begin nothing new, and return whether nothing is in flight any more. Asked again and again
        before ``reset`` and ``close``, which come when it is so, or when the machine's patience ends.
        """
        return True

    @property
    def busy(self) -> bool:
        """Whether the host still uses the guest's memory for something that was given up. Any thread."""
        return False

    def prepare_close(self) -> None:
        """``close`` follows, when all functions were told: begin what takes time."""

    def close(self) -> None:
        """Give back what ``realize`` opened; also after ``realize`` failed half-way. Idempotent."""

    def bar_mapped(self, index: int, base: int) -> None:
        """BAR *index* answers at *base* (port or gpa) from now on. The first call comes before ``realize``."""

    def bar_unmapped(self, index: int) -> None:
        """BAR *index* does not answer any more: decoding is off, or it is about to move."""

    def command_changed(self) -> None:
        """The command register (decoding, bus mastering) has another value; BAR calls were made before."""

    def interrupts_changed(self) -> None:
        """MSI-X or MSI was enabled or disabled, or INTx disable changed."""

    def window_changed(self) -> None:
        """The terminal that this process stands on has another size."""

    def pirqs_routed(self, pirqs: PirqRouter) -> None:
        """The machine has routed all interrupt pins (the LPC bridge shows the links)."""

    def config_read(self, offset: int, size: int) -> int:
        """The guest reads *size* (1, 2 or 4, aligned) bytes of the configuration space at *offset* < 256."""
        value = self.config.read(offset, size)
        if offset < cs.STATUS + 2 and offset + size > cs.STATUS and self.intx is not None and self.intx.asserted:
            shift = 8 * (cs.STATUS - offset)
            value |= cs.STATUS_INTERRUPT << shift if shift >= 0 else cs.STATUS_INTERRUPT >> -shift
        if self.msi is not None:
            value |= self.msi.pending_register(offset, size)
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        """The guest writes *size* (1, 2 or 4, aligned) bytes of the configuration space at *offset* < 256."""
        command = self.config.read(cs.COMMAND, 2)
        self.config.write(offset, size, value)
        for bar in self.bars.values():
            if bar.written(self.config, offset, size, value):
                self._unmap(bar)
        self._update_mappings()
        control, capability = self._msix_control, self._msi_capability
        if self.msix is not None and offset < control + 2 and offset + size > control:
            self.msix.set_control(self.config.read(control, 2))
        if self.msi is not None and offset < capability + self.msi.form.length and offset + size > capability:
            self.msi.registers_written()
        self._update_interrupts()
        if command != self.config.read(cs.COMMAND, 2):
            self.command_changed()

    def extended_read(self, offset: int, size: int) -> int:
        """The guest reads *size* (1, 2 or 4, aligned) bytes of the configuration space at 256 <= *offset* < 4096.

        Conventional functions have none. An empty list there, which the original has, makes a guest look for each
        extended capability that it knows, a request each. An Express function has the list, and an empty one is a
        header of zeroes (PCI Express 3.0, 7.9.1).
        """
        return 0 if self.express and offset < cs.SIZE + 4 else ALL_ONES

    def extended_write(self, offset: int, size: int, value: int) -> None:
        """The guest writes *size* (1, 2 or 4, aligned) bytes there."""

    # State that the guest controls.

    @property
    def io_enabled(self) -> bool:
        """Whether I/O BARs decode."""
        return bool(self.config.read(cs.COMMAND, 2) & cs.COMMAND_IO)

    @property
    def memory_enabled(self) -> bool:
        """Whether memory BARs decode."""
        return bool(self.config.read(cs.COMMAND, 2) & cs.COMMAND_MEMORY)

    @property
    def bus_master(self) -> bool:
        """Whether the function may access memory by itself."""
        return bool(self.config.read(cs.COMMAND, 2) & cs.COMMAND_MASTER)

    # Called by the bus.

    def place_bar(self, bar: Bar, base: int, *, prefetchable: bool = False) -> None:
        """The machine puts *bar* at *base*, for now and after every reset."""
        bar.assigned, bar.prefetchable = base, prefetchable
        bar.define(self.config)

    def connect(self, resources: Resources) -> None:
        """Join the machine: interrupts have a way out, BARs answer."""
        with self.lock:
            self._resources = resources
            for vectors in (self.msix, self.msi):
                if vectors is not None:
                    vectors.connect(resources.interrupts)
            self._update_mappings()

    def _define_header(self) -> None:
        config = self.config
        # Decoding is on from the start, as in the original: BARs answer before firmware has touched them.
        decode = cs.COMMAND_IO | cs.COMMAND_MEMORY | cs.COMMAND_MASTER
        config.define(cs.COMMAND, 2, decode, writable=cs.COMMAND_WRITABLE)
        config.define(cs.STATUS, 2, 0, clear_by_one=cs.STATUS_ERRORS)
        config.define(cs.CACHE_LINE, 2, 0, writable=0xFFFF)  # cache line size and latency timer: storage only
        config.define(cs.INTERRUPT_LINE, 1, 0xFF, writable=0xFF)

    def _space(self, bar: Bar) -> Bus | None:
        if self._resources is None:
            return None
        return self._resources.pio if bar.is_io else self._resources.mmio

    def _update_mappings(self) -> None:
        for bar in self.bars.values():
            space = self._space(bar)
            if space is None:
                continue
            wanted = (self.io_enabled if bar.is_io else self.memory_enabled) and bar.fits(space)
            if wanted and not bar.mapped:
                BarWindow(bar, self.lock).map(space, f"{self.context.blamed} BAR{bar.index}")
                self.bar_mapped(bar.index, bar.base)
            elif not wanted:
                self._unmap(bar)

    def _unmap(self, bar: Bar) -> None:
        space = self._space(bar)
        if bar.window is not None and space is not None:
            bar.window.unmap(space)
            self.bar_unmapped(bar.index)

    def _unmap_all(self) -> None:
        for bar in self.bars.values():
            self._unmap(bar)

    def _update_interrupts(self) -> None:
        disabled = bool(self.config.read(cs.COMMAND, 2) & cs.COMMAND_INTX_DISABLE)
        mode = (disabled, self.msix is not None and self.msix.enabled, self.msi is not None and self.msi.enabled)
        if mode == self._interrupt_mode:
            return
        self._interrupt_mode = mode
        if self.intx is not None:
            self.intx.gate(any(mode))
        self.interrupts_changed()
