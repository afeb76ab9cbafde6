"""The configuration: what the user asked for, resolved and frozen; the record that the machine is built from.

Made from argv or TOML by ``cli``; nothing here opens a file. Sizes are bytes, durations are what their names say.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import attrs

from acrn_dm.base.address_map import MIB
from acrn_dm.base.process.users import User
from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox import MODES, OFF
from acrn_dm.contract.interrupt_monitor import InterruptMonitor
from acrn_dm.contract.types import Bdf

MAX_VCPUS = 8
MAX_NAME = 15  # the original's MAX_VM_NAME_LEN is 16 with the NUL
MIN_MEMORY = 128 * MIB
MEMORY_STEP = 2 * MIB
MAX_MEMORY = 0x40_0000_0000 - 0x1_0000_0000  # what fits between 4 GiB and the 64-bit PCI window
VM_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


@frozen(kw_only=True)
class DeviceSpec:
    """One ``-s``: where, what, and its options, as written (``text``) or as a TOML table (``table``)."""

    bdf: Bdf
    kind: str
    text: str = ""
    table: Mapping[str, object] | None = None
    bootable: bool = False  # the original's ",b"
    origin: str = attrs.field(default="", eq=False)  # where it was written, for errors: "-s 3,virtio-blk,/img"


@frozen(kw_only=True)
class UartSpec:
    """One ``-l``: COM port 1..5 and its backend; only COM5 has an address of its own.

    The backend is ``stdio``, ``tcp:PORT`` or a tty's path; an empty one is a port with nothing behind it. *wait*: the
    guest waits for a reader that stands still, instead of losing its oldest output.
    """

    number: int
    backend: str
    wait: bool = False
    io_base: int | None = None
    irq: int | None = None


@frozen(kw_only=True)
class Firmware:
    """``--ovmf``: one image, or code and variables apart; *writeback* keeps what the guest stores in the variables."""

    image: Path | None = None
    code: Path | None = None
    variables: Path | None = None
    writeback: bool = False


def _in_range(low: int, high: int) -> "Callable[[object, attrs.Attribute[int], int], None]":
    def check(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
        if not low <= value <= high:
            raise ValueError(f"{attribute.name} {value} is outside {low}..{high}")

    return check


def _memory(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < MIN_MEMORY or value % MEMORY_STEP or value > MAX_MEMORY:
        raise ValueError(f"memory of {value} bytes: must be a multiple of 2 MiB from 128 MiB to {MAX_MEMORY >> 30} GiB")


def _vm_name(instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not value or len(value) > MAX_NAME or not VM_NAME.match(value):
        raise ValueError(f"VM name {value!r}: 1 to {MAX_NAME} letters, digits, '-' or '_'")


def _distinct(
    instance: object, attribute: "attrs.Attribute[tuple[DeviceSpec, ...]]", value: tuple[DeviceSpec, ...]
) -> None:
    seen: set[Bdf] = set()
    for spec in value:
        if spec.bdf in seen:
            raise ValueError(f"slot {spec.bdf} is used twice")
        seen.add(spec.bdf)


@frozen(kw_only=True)
class MachineConfig:
    """A whole machine. Validators raise ValueError; ``cli`` turns that into a ConfigError that names the option."""

    name: str = attrs.field(default="vm", validator=_vm_name)
    memory_bytes: int = attrs.field(default=256 * MIB, validator=_memory)
    vcpus: int = attrs.field(default=1, validator=_in_range(1, MAX_VCPUS))
    cpu_affinity: tuple[int, ...] = ()  # host LAPIC ids of --cpu_affinity
    kernel: Path | None = None  # -k: bzImage or vmlinux
    elf: Path | None = None  # -E: multiboot ELF
    firmware: Firmware | None = None  # --ovmf
    ramdisk: Path | None = None
    bootargs: str = ""
    uuid: UUID | None = None  # --uuid; None: made from the name
    devices: tuple[DeviceSpec, ...] = attrs.field(default=(), validator=_distinct)
    uarts: tuple[UartSpec, ...] = ()
    command_monitor: Path | None = None  # --cmd_monitor: its socket
    manager_directory: Path | None = None  # where the manager's tools look for this machine's socket
    hypervisor: str = "auto"
    allow_slow: bool = False  # --allow-slow-kvm
    hugepages: str = attrs.field(default="auto", validator=attrs.validators.in_(("auto", "on", "off")))
    dump_guest_core: bool = False  # core dumps of this process have the guest's memory, too
    user: User | None = None  # --user: who this process is, and those of its devices, when all is open
    sandbox: str = attrs.field(default=OFF, validator=attrs.validators.in_(MODES))  # --sandbox, of this process
    rtvm: bool = False
    lapic_pt: bool = False  # implied by rtvm, and nothing without it
    enable_trusty: bool = False
    interrupt_monitor: InterruptMonitor | None = None
    windows: bool = False
    virtio_msi: bool = False
    virtio_poll_ns: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_in_range(1, 10_000_000))
    )
    debugexit: bool = False
    shutdown_timeout_s: float = 30.0  # after the power button was pressed, before the guest is forced off
    plugin_options: Mapping[str, object] = attrs.field(factory=dict)  # values by the names that plugins gave them

    @property
    def gives_up_rights(self) -> bool:
        """Whether the machine's process does so when all is open: see ``machine.rights``."""
        return self.user is not None or self.sandbox != OFF
