"""``--cpu_affinity`` where the host's own scheduler runs the vCPUs: from LAPIC ids to Linux's CPU numbers."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from acrn_dm.base.errors import ConfigError

CPUINFO = Path("/proc/cpuinfo")
OPTION = "--cpu_affinity"


def cpus_by_lapic_id(cpuinfo: Path = CPUINFO) -> dict[int, int]:
    """Return Linux's number of each CPU that is online, by its LAPIC id; empty where the kernel does not tell."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return {}
    pairs = re.findall(r"^processor\s*:\s*(\d+)$(?:\n.+)*?\napicid\s*:\s*(\d+)$", text, re.MULTILINE)
    return {int(lapic_id): int(cpu) for cpu, lapic_id in pairs}


def pins(lapic_ids: Sequence[int], host: Mapping[int, int], allowed: Collection[int]) -> tuple[int, ...]:
    """Return the CPU of each vCPU; *host* is from ``cpus_by_lapic_id``, *allowed* are CPUs this process may use.

    vCPU n gets the n-th CPU in the host's order, as on ACRN, however the ids are ordered. Raises ConfigError.
    """
    text = ",".join(map(str, lapic_ids))
    for lapic_id in lapic_ids:
        if lapic_id not in host:
            known = ",".join(map(str, sorted(host))) or "not told by /proc/cpuinfo"
            raise ConfigError(
                f"no CPU has the LAPIC id {lapic_id}; this host's LAPIC ids: {known}", option=OPTION, value=text
            )
        if host[lapic_id] not in allowed:
            reason = f"CPU {host[lapic_id]}, with the LAPIC id {lapic_id}, is not one that this process may use"
            raise ConfigError(reason, option=OPTION, value=text)
    return tuple(sorted(host[lapic_id] for lapic_id in lapic_ids))


def placement(lapic_ids: Sequence[int]) -> tuple[int, ...]:
    """``pins`` on this host; nothing is pinned without ids. Raises ConfigError."""
    return pins(lapic_ids, cpus_by_lapic_id(), os.sched_getaffinity(0)) if lapic_ids else ()
