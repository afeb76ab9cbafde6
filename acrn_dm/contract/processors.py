"""Performance and idle states of a guest's processors, as ACPI describes them (ACPI 6.5, 8.4)."""

import attrs

from acrn_dm.base.records import frozen


@frozen(kw_only=True)
class PState:
    """One performance state: MHz, mW, two latencies in us, and what to write to and read from the control register."""

    frequency_mhz: int
    power_mw: int
    transition_us: int
    bus_master_us: int
    control: int = attrs.field(repr=hex)
    status: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class GenericAddress:
    """A generic address: *space* 0 memory, 1 ports, 0x7F functional fixed hardware."""

    space: int
    bit_width: int
    bit_offset: int
    access_size: int
    address: int = attrs.field(repr=hex)


@frozen(kw_only=True)
class CState:
    """One idle state: how it is entered, its type (1 C1, 2 C2, 3 C3), worst-case latency in us, mW."""

    register: GenericAddress
    type: int
    latency_us: int
    power_mw: int


@frozen(kw_only=True)
class ProcessorPower:
    """The states of one vCPU. With *continuous* its performance has no states: ACPI's ``_CPC`` describes it."""

    pstates: tuple[PState, ...] = ()
    cstates: tuple[CState, ...] = ()
    continuous: bool = False
