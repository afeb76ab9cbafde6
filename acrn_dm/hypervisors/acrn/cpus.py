"""The physical CPUs that a virtual machine may run on: from LAPIC ids to the hypervisor's numbers.

The hypervisor numbers CPUs by their place among the enabled local APICs of the host's MADT (ACPI 6.5, 5.2.12.2), and
gives vCPU n the n-th of the CPUs allowed, so the guest's MADT has to name their LAPIC ids in that order.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.records import frozen

MADT = Path("/sys/firmware/acpi/tables/APIC")
OPTION = "--cpu_affinity"
MAX_CPUS = 64  # bits of the hypervisor's map
HEADER = 44  # ACPI table header, local APIC address, flags
LOCAL_APIC, ENABLED = 0, 1


@frozen(kw_only=True)
class Placement:
    """*affinity*: one bit a physical CPU; *apic_ids*: LAPIC ids in the order of the vCPUs."""

    affinity: int = attrs.field(repr=hex)
    apic_ids: tuple[int, ...]


def host_lapic_ids(madt: Path = MADT) -> tuple[int, ...]:
    """Return the LAPIC ids of the host's CPUs in the hypervisor's order. Raises HostError."""
    try:
        table = madt.read_bytes()
    except OSError as e:
        raise HostError.from_os(f"reading {madt}", e, "run as root, on a host with ACPI") from e
    return parse_madt(table)


def parse_madt(table: bytes) -> tuple[int, ...]:
    """Return the ids of the enabled local APICs of a MADT."""
    found = []
    at = HEADER
    while at + 2 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 2:
            break
        if kind == LOCAL_APIC and at + 8 <= len(table):
            apic_id, flags = struct.unpack_from("<BI", table, at + 3)
            if flags & ENABLED:
                found.append(apic_id)
        at += length
    return tuple(found)


def place(lapic_ids: Sequence[int], host: Sequence[int]) -> Placement:
    """Find the CPUs of *lapic_ids* among the *host*'s. Raises ConfigError."""
    known = f"this host's LAPIC ids: {','.join(map(str, host)) or 'none'}"
    if not lapic_ids:
        raise ConfigError(f"ACRN needs the host CPUs of each virtual CPU; {known}", option=OPTION)
    text = ",".join(map(str, lapic_ids))
    cpus = []
    for lapic_id in lapic_ids:
        if lapic_id not in host[:MAX_CPUS]:
            raise ConfigError(f"no CPU has the LAPIC id {lapic_id}; {known}", option=OPTION, value=text)
        cpus.append(host.index(lapic_id))
    if len(set(cpus)) != len(cpus):
        raise ConfigError("a LAPIC id is given twice", option=OPTION, value=text)
    return Placement(affinity=sum(1 << cpu for cpu in cpus), apic_ids=tuple(host[cpu] for cpu in sorted(cpus)))
