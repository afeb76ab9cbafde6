"""Entry state of the boot processor: what a loader hands to the hypervisor."""

import attrs

from acrn_dm.base.records import frozen


@frozen(kw_only=True)
class Segment:
    """A segment register with its hidden part; *access* is the VMX access-rights word (type, S, DPL, P, AVL, L, D/B,
    G).
    """

    selector: int = attrs.field(repr=hex)
    base: int = attrs.field(default=0, repr=hex)
    limit: int = attrs.field(default=0xFFFF_FFFF, repr=hex)
    access: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class BootRegisters:
    """Registers of vCPU 0 at its first instruction; every other general register is 0, interrupts are off."""

    rip: int = attrs.field(repr=hex)
    code: Segment
    data: Segment  # DS, ES, SS, FS and GS
    cr0: int = attrs.field(default=0x31, repr=hex)
    cr4: int = 0
    cr3: int = 0
    efer: int = 0
    gdt_base: int = attrs.field(default=0, repr=hex)
    gdt_limit: int = 0
    rax: int = attrs.field(default=0, repr=hex)
    rbx: int = attrs.field(default=0, repr=hex)
    rsi: int = attrs.field(default=0, repr=hex)
    rsp: int = 0
