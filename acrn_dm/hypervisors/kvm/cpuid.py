"""CPUID of a guest: what KVM and the host offer, with the leaves that describe the topology made for this guest.

KVM_GET_SUPPORTED_CPUID passes the host's topology on (Documentation/virt/kvm/x86/errata.rst, "KVM_GET_SUPPORTED_CPUID
issues"), so each leaf that has an APIC id or a count of processors is rewritten: one package, one core a vCPU, one
thread a core. Leaves are defined in Intel SDM volume 2, CPUID, and AMD APM volume 3, appendix E.
"""

from collections.abc import Sequence

import attrs

from acrn_dm.base.records import frozen
from acrn_dm.hypervisors.kvm.module._system import CPUID_INDEXED as INDEXED

HYPERVISOR = 1 << 31  # leaf 1 ECX
TSC_DEADLINE = 1 << 24  # leaf 1 ECX
MULTI_PROCESSOR = 1 << 28  # leaf 1 EDX (HTT): EBX[23:16] is valid
CMP_LEGACY = 1 << 1  # leaf 0x80000001 ECX, AMD: the logical processors of a package are cores
KVM_SIGNATURE = 0x4000_0000  # EAX: highest leaf of the range
TIMING = 0x4000_0010
APIC_BUS_KHZ = 1_000_000  # the in-kernel local APIC timer counts at 1 GHz (APIC_BUS_CYCLE_NS is 1)
LEVEL_SMT, LEVEL_CORE = 1, 2  # leaf 0xB ECX[15:8]


@frozen(kw_only=True)
class CpuidLeaf:
    """One leaf, or with ``INDEXED`` in *flags* one subleaf."""

    function: int = attrs.field(repr=hex)
    index: int = 0
    flags: int = 0
    eax: int = attrs.field(default=0, repr=hex)
    ebx: int = attrs.field(default=0, repr=hex)
    ecx: int = attrs.field(default=0, repr=hex)
    edx: int = attrs.field(default=0, repr=hex)


@frozen(kw_only=True)
class Topology:
    """One vCPU's place: its APIC id and those of all vCPUs, in the order of the vCPUs."""

    apic_id: int
    apic_ids: tuple[int, ...]
    tsc_deadline: bool = True
    tsc_khz: int = 0  # 0: not known, no timing leaf

    @property
    def cores(self) -> int:
        """How many vCPUs, each a core."""
        return len(self.apic_ids)

    @property
    def core_bits(self) -> int:
        """Width of the core's part of an APIC id."""
        return max(self.apic_ids).bit_length()

    @property
    def addressable(self) -> int:
        """APIC ids that the package reserves."""
        return 1 << self.core_bits


def guest_cpuid(supported: Sequence[CpuidLeaf], topology: Topology) -> list[CpuidLeaf]:
    """Return the leaves of the vCPU at *topology*, made of what KVM supports."""
    amd = any(leaf.function == 0x8000_0000 and leaf.edx == 0x6974_6E65 for leaf in supported)  # "enti" of AuthenticAMD
    leaves: list[CpuidLeaf] = []
    for leaf in supported:
        if leaf.function in (0xB, 0x1F):
            if leaf.index == 0:
                leaves += _extended_topology(leaf.function, topology)
        elif leaf.function != TIMING:
            leaves.append(_fixed(leaf, topology, amd))
    if topology.tsc_khz:
        leaves.append(CpuidLeaf(function=TIMING, eax=topology.tsc_khz, ebx=APIC_BUS_KHZ))
    return leaves


def _fixed(leaf: CpuidLeaf, topology: Topology, amd: bool) -> CpuidLeaf:
    function = leaf.function
    if function == 1:
        return _features(leaf, topology)
    if function in (4, 0x8000_001D):
        return _cache(leaf, topology, intel=function == 4)
    if function == KVM_SIGNATURE and topology.tsc_khz:
        return attrs.evolve(leaf, eax=max(leaf.eax, TIMING))
    if not amd:
        return leaf
    if function == 0x8000_0001:
        several = topology.cores > 1
        return attrs.evolve(leaf, ecx=leaf.ecx & ~CMP_LEGACY | (CMP_LEGACY if several else 0))
    if function == 0x8000_0008:  # ECX[7:0] cores - 1, ECX[15:12] bits of an APIC id that name the core
        return attrs.evolve(leaf, ecx=leaf.ecx & ~0xF0FF | topology.core_bits << 12 | (topology.cores - 1) & 0xFF)
    if function == 0x8000_001E:  # extended APIC id; EBX[7:0] core, EBX[15:8] threads a core - 1; one node
        return attrs.evolve(leaf, eax=topology.apic_id, ebx=topology.apic_id & 0xFF, ecx=0)
    return leaf


def _features(leaf: CpuidLeaf, topology: Topology) -> CpuidLeaf:
    """Leaf 1: EBX[31:24] initial APIC id, EBX[23:16] addressable ids of the package."""
    several = topology.cores > 1
    count = min(topology.addressable, 255) if several else 0
    ecx = leaf.ecx | HYPERVISOR
    ecx = ecx | TSC_DEADLINE if topology.tsc_deadline else ecx & ~TSC_DEADLINE
    return attrs.evolve(
        leaf,
        ebx=leaf.ebx & 0xFFFF | topology.apic_id << 24 | count << 16,
        ecx=ecx,
        edx=leaf.edx | MULTI_PROCESSOR if several else leaf.edx & ~MULTI_PROCESSOR,
    )


def _cache(leaf: CpuidLeaf, topology: Topology, *, intel: bool) -> CpuidLeaf:
    """EAX[4:0] type (0: no more), EAX[7:5] level, EAX[25:14] sharers - 1, EAX[31:26] Intel: core ids - 1."""
    if leaf.eax & 0x1F == 0:
        return leaf
    level = leaf.eax >> 5 & 7
    sharers = topology.addressable if level >= 3 else 1
    eax = leaf.eax & 0x3FFF | (sharers - 1) << 14
    if intel:
        eax |= min(topology.addressable - 1, 63) << 26
    return attrs.evolve(leaf, eax=eax)


def _extended_topology(function: int, topology: Topology) -> list[CpuidLeaf]:
    """Leaves 0xB and 0x1F: EAX shift to the next level's id, EBX processors at this level, ECX level, EDX x2APIC id."""
    levels = ((0, 1, LEVEL_SMT), (topology.core_bits, topology.cores, LEVEL_CORE), (0, 0, 0))
    return [
        CpuidLeaf(
            function=function,
            index=i,
            flags=INDEXED,
            eax=shift,
            ebx=count,
            ecx=level << 8 | i,
            edx=topology.apic_id,
        )
        for i, (shift, count, level) in enumerate(levels)
    ]
