"""The records that plugins return from their hooks. A new field with a default is compatible; one less is not."""

import re
from collections.abc import Callable, Collection
from typing import Any

import attrs

API = 1  # raised when a record's meaning changes; a type made for a newer one is refused with a readable error

_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")


def _name(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not _NAME.match(value):
        raise ValueError(f"{attribute.name} {value!r} is not a name: lower-case letters, digits, '-', '_', '.'")


@attrs.frozen(kw_only=True)
class Bdf:
    """A PCI function's place. Shown as ``bus:slot.func`` in decimal, as on the command line."""

    bus: int = 0
    slot: int
    func: int = 0

    def __str__(self) -> str:
        return f"{self.bus}:{self.slot}.{self.func}"


@attrs.frozen(kw_only=True)
class DeviceContext:
    """What a device may know about its place in the machine while it is built. Nothing is open yet."""

    bdf: Bdf
    kind: str  # the name it was asked for by, e.g. "virtio-blk"
    text: str = ""  # the option string as written: some identifiers are derived from it
    machine: str = "vm"
    vcpus: int = 1
    windows: bool = False  # PCI subsystem vendor 0x108E instead of 0x1AF4, for Windows drivers
    virtio_msi: bool = False  # one MSI vector instead of MSI-X
    poll_ns: int | None = None  # --virtio_poll
    backend: str | None = None  # backend=NAME: who moves the data by the user's wish; None: as the device says

    @property
    def name(self) -> str:
        """The instance's name in logs, tables and thread names: ``virtio-blk-3:0``."""
        return f"{self.kind}-{self.bdf.slot}:{self.bdf.func}"


@attrs.frozen(kw_only=True)
class DeviceType:
    """A kind of device as on the command line.

    ``config`` is an attrs class made of ``option`` fields (see ``options``); with a classmethod ``from_string(text)``
    it has its own grammar. ``create(config, context)`` returns a ``VirtioDevice`` or a ``PciFunction`` and opens
    nothing.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    config: type
    create: Callable[[Any, DeviceContext], Any]
    aliases: tuple[str, ...] = ()
    api: int = API


@attrs.frozen(kw_only=True)
class BackendType:
    """Who moves a device's data. ``kinds`` are device names, ``*`` for all; ``probe()`` says why it is unusable."""

    name: str = attrs.field(validator=_name)
    summary: str
    kinds: Collection[str]
    create: Callable[..., Any]
    probe: Callable[[], str | None] = lambda: None
    api: int = API


@attrs.frozen(kw_only=True)
class HypervisorOptions:
    """What a hypervisor needs to open one virtual machine."""

    name: str = "vm"
    vcpus: int = 1
    apic_ids: tuple[int, ...] = ()  # empty: 0, 1, 2 ...
    allow_slow: bool = False  # open even where probe() says that it would be unusably slow
    cpu_affinity: tuple[int, ...] = ()  # LAPIC ids of the host's CPUs that the vCPUs run on
    rtvm: bool = False  # a real-time guest: its local APICs are the processor's own
    enable_trusty: bool = False  # with a secure world


@attrs.frozen(kw_only=True)
class HypervisorType:
    """A hypervisor: ``probe()`` returns None or one line with the reason why it can't be used here; ``open`` makes
    the VM.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    probe: Callable[[], str | None]
    open: Callable[[HypervisorOptions], Any]
    check: Callable[[HypervisorOptions], list[str]] = lambda options: []  # what is missing for these, before opening
    ioapic_pins: int = 24  # GSIs that INTx routing may use: 48 on ACRN
    needs_pit: bool = False  # the timer (8254) and port 0x61 are left to the device model
    acrn_options: bool = False  # takes the options that only ACRN has: real-time guests, secure world, storm monitor
    resumes: bool = True  # vCPUs that were paused can go on
    runs_guests: bool = True  # False: it has no processors; nothing but a test gets further than ``--dry-run``
    rank: int = 0  # ``--hypervisor auto`` takes the usable one of highest rank; below 0: never automatically
    api: int = API


@attrs.frozen(kw_only=True)
class Provenance:
    """Where a plugin came from."""

    plugin: str
    distribution: str = "built in"
    version: str = ""

    def __str__(self) -> str:
        return f"plugin {self.plugin} ({self.distribution}{' ' + self.version if self.version else ''})"
