"""The records that plugins return from their hooks. A new field with a default is compatible; one less is not."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Literal, Never, Protocol

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.io_threads import NS_PER_US, DeviceLoops, IoThreads
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.contract.drivers.block import BlockDriver
from acrn_dm.contract.drivers.packet import PacketDriver
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.resources import Resources

API = 1  # raised when a record's meaning changes; a type made for a newer one is refused with a readable error

BUILT_IN = "built in"  # the distribution of the plugins that are part of this package
NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")


def _name(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not isinstance(value, str) or not NAME.match(value):
        raise ValueError(f"{attribute.name} {value!r} is not a name: lower-case letters, digits, '-', '_', '.'")


def _nothing_below(text: str) -> BlockDriver:
    raise ConfigError("nothing can stand below a driver here", value=text)


@frozen(kw_only=True)
class Bdf:
    """A PCI function's place. Shown as ``bus:slot.func`` in decimal, as on the command line."""

    bus: int = 0
    slot: int
    func: int = 0

    def __str__(self) -> str:
        return f"{self.bus}:{self.slot}.{self.func}"


@frozen(kw_only=True)
class ChosenDriver:
    """The driver behind a device (``driver=NAME``): made, not open. *blamed* is what a line about its failure begins
    with.
    """

    name: str
    driver: BlockDriver | PacketDriver
    blamed: str


@frozen(kw_only=True)
class DeviceContext:
    """A device's place in the machine, as far as it may know it while it is built. Nothing is open yet."""

    bdf: Bdf
    kind: str  # the name it was asked for by, e.g. "virtio-blk"
    text: str = ""  # the option string as written: some identifiers are derived from it
    machine: str = "vm"
    vcpus: int = 1
    windows: bool = False  # PCI subsystem vendor 0x108E instead of 0x1AF4, for Windows drivers
    virtio_msi: bool = False  # one MSI vector instead of MSI-X
    poll_ns: int | None = None  # --virtio_poll
    backend: str | None = None  # backend=NAME: who moves the data by the user's wish; None: as the device says
    switches: Mapping[str, bool] = attrs.field(factory=dict, repr=False)  # queue_reset=off ...: features of its rings
    iothread: IoThreads = attrs.field(factory=IoThreads)  # iothread[=N[@CPUS]], where it is no option of its kind's
    io_poll_us: int = 0  # poll_us=N: its loops look at its queues for that long before they sleep
    strict: bool = False  # strict=on: its driver is checked, and what it breaks of the specification is logged
    vhost_server: bool = False  # server=on: the process at the device's socket connects to us
    vhost_relay: bool = False  # relay=on: what a vhost-user process gets that takes no notes passes through this one
    vhost_wait: float | None = None  # wait=: seconds that the start waits for that process; None: by the role
    plugin_options: Mapping[str, object] = attrs.field(factory=dict, repr=False)  # as ``MachineConfig`` has them
    provider: str = ""  # the installed plugin that offers the kind, with distribution and version; empty: built in
    driver: ChosenDriver | None = None  # driver=NAME: what is behind it by the user's wish; None: as the device says

    @property
    def name(self) -> str:
        """The instance's name in logs, tables and thread names: ``virtio-blk-3:0``."""
        return f"{self.kind}-{self.bdf.slot}:{self.bdf.func}"

    @property
    def blamed(self) -> str:
        """``name``, and for a plugin's device whose it is: what a line about its failure begins with."""
        return f"{self.name} ({self.provider})" if self.provider else self.name


def device_loops(context: DeviceContext, make: Callable[[str], IoLoop]) -> DeviceLoops:
    """The loops of the device at *context*; *make* is the machine's."""
    return DeviceLoops(
        device=context.name,
        short=f"{context.kind.removeprefix('virtio-')}{context.bdf.slot}:{context.bdf.func}",
        threads=context.iothread,
        poll_ns=context.io_poll_us * NS_PER_US,
        make=make,
    )


class Device(Protocol):
    """A device, whatever its bus: what the classes to derive from, ``VirtioDevice`` and ``PciFunction``, have in
    common. The machine takes no others.
    """

    name: str
    context: DeviceContext

    def check(self) -> list[str]:
        """Say what is missing on this host, one line each; opens and changes nothing."""

    def realize(self, resources: Resources) -> None:
        """Open what the device needs; called once, before the guest starts. Raises ConfigError or HostError."""

    def reset(self) -> None:
        """Forget what the driver has said."""

    def close(self) -> None:
        """Give back what ``realize`` opened. Idempotent."""


@frozen(kw_only=True)
class DeviceType:
    """A kind of device as on the command line.

    ``config`` is an attrs class made of ``option`` fields (see ``options``); with a classmethod ``from_string(text)``
    it has its own grammar. ``create(config, context)`` gets an instance of it, returns a ``VirtioDevice`` or a
    ``PciFunction``, and opens nothing.

    A kind with ``drivers`` takes ``driver=NAME`` of that sort; the driver is in the context's ``driver`` then. Its
    option class has a field ``driver`` for the name, and in ``NOT_WITH_DRIVER`` the names of those of its options that
    do not go with one: they are the driver's to have.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    config: type
    create: Callable[[Never, DeviceContext], Device]  # Never: each kind's takes its own ``config``, no two the same
    aliases: tuple[str, ...] = ()
    drivers: Literal["block", "packet"] | None = None
    api: int = API


@frozen(kw_only=True)
class DriverContext:
    """A driver's place, as far as it may know it while it is built. Nothing is open yet."""

    device: str  # the instance's name, for logs and thread names: ``virtio-blk-3:0``
    machine: str = "vm"
    read_only: bool = False  # nothing will be written: the disk has ``ro``
    plugin_options: Mapping[str, object] = attrs.field(factory=dict, repr=False)  # as ``MachineConfig`` has them
    # Makes the block driver that a text means, which is as behind ``-s SLOT,virtio-blk,``: ``PATH``, or
    # ``driver=NAME,OPTION...``. For drivers that stand before another one. Raises ConfigError, PluginError.
    over: Callable[[str], BlockDriver] = attrs.field(default=_nothing_below, repr=False)


@frozen(kw_only=True)
class BlockDriverType:
    """A kind of block driver. ``config`` is as a device's; ``create(config, context)`` returns a ``BlockDriver``, and
    opens nothing.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    config: type
    create: Callable[[Never, DriverContext], BlockDriver]
    api: int = API


@frozen(kw_only=True)
class PacketDriverType:
    """A kind of packet driver. ``config`` is as a device's; ``create(config, context)`` returns a ``PacketDriver``, and
    opens nothing.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    config: type
    create: Callable[[Never, DriverContext], PacketDriver]
    api: int = API


@frozen(kw_only=True)
class BackendType:
    """A kind of backend, which moves a device's data. ``kinds`` are device names, ``*`` for all; ``probe()`` says why
    it is unusable.

    ``create(device)`` gets the ``VirtioDevice`` and returns a ``Backend``.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    kinds: Collection[str]
    create: Callable[[Never], object]  # of types above the contract: ``virtio.choice.make`` knows both
    probe: Callable[[], str | None] = lambda: None
    api: int = API


@frozen(kw_only=True)
class HypervisorOptions:
    """The options with which a hypervisor opens one virtual machine.

    ``plugin_options`` has what only some plugins know: every option that a plugin added (``acrn_dm_add_options``), as
    ``MachineConfig`` has them, and those of the built-in options that ``HypervisorType.takes`` names, by these names.
    """

    name: str = "vm"
    vcpus: int = 1
    apic_ids: tuple[int, ...] = ()  # empty: 0, 1, 2 ...
    allow_slow: bool = False  # open even where probe() says that it would be unusably slow
    cpu_affinity: tuple[int, ...] = ()  # LAPIC ids of the host's CPUs that the vCPUs run on
    plugin_options: Mapping[str, object] = attrs.field(factory=dict)


@frozen(kw_only=True)
class HypervisorType:
    """A hypervisor: ``probe()`` returns None or one line with the reason why it can't be used here; ``open`` makes
    the VM.
    """

    name: str = attrs.field(validator=_name)
    summary: str
    probe: Callable[[], str | None]
    open: Callable[[HypervisorOptions], Hypervisor]
    check: Callable[[HypervisorOptions], list[str]] = lambda options: []  # what is missing for these, before opening
    takes: Collection[str] = ()  # of the built-in options that are not for every hypervisor, the ones that this takes
    ioapic_pins: int = 24  # GSIs that INTx routing may use: 48 on ACRN
    needs_pit: bool = False  # the timer (8254) and port 0x61 are left to the device model
    resumes: bool = True  # vCPUs that were paused can go on
    runs_guests: bool = True  # False: it has no processors; nothing but a test gets further than ``--dry-run``
    needs: Needs | None = None  # of an open VM, at a reset, too; without it ``--user`` and ``--sandbox`` are refused
    rank: int = 0  # ``--hypervisor auto`` takes the usable one of highest rank; below 0: never automatically
    api: int = API


@frozen(kw_only=True)
class Provenance:
    """The origin of a plugin."""

    plugin: str
    distribution: str = BUILT_IN
    version: str = ""

    @property
    def built_in(self) -> bool:
        """It is part of this package."""
        return self.distribution == BUILT_IN

    def __str__(self) -> str:
        return f"plugin {self.plugin} ({self.distribution}{' ' + self.version if self.version else ''})"
