"""Processor objects with their performance and idle states (ACPI 6.5, 8.4): what a hypervisor lets its guest choose.

The registers are functional fixed hardware, i.e. MSRs of the processor that the hypervisor passes on.
"""

from acrn_dm.boot.acpi import aml, resource
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.contract.processors import GenericAddress, ProcessorPower

FIXED_HARDWARE = 0x7F
MEMORY = 0
MAX_PROCESSORS = 100  # names have two digits

HWP_CAPABILITIES, HWP_REQUEST, HWP_STATUS, PM_ENABLE = 0x771, 0x774, 0x777, 0x770
PLATFORM_INFO, MPERF, APERF = 0xCE, 0xE7, 0xE8
NONE = GenericAddress(space=MEMORY, bit_width=0, bit_offset=0, access_size=0, address=0)


def _msr(width: int, offset: int, address: int) -> GenericAddress:
    return GenericAddress(space=FIXED_HARDWARE, bit_width=width, bit_offset=offset, access_size=4, address=address)


# _CPC, revision 3 (8.4.6.1): hardware-controlled performance states (Intel SDM volume 3, 15.4). A number is a constant.
CONTINUOUS: tuple[GenericAddress | int, ...] = (
    _msr(8, 0, HWP_CAPABILITIES),  # highest performance
    _msr(8, 8, PLATFORM_INFO),  # nominal
    _msr(8, 16, HWP_CAPABILITIES),  # lowest non-linear
    _msr(8, 24, HWP_CAPABILITIES),  # lowest
    _msr(8, 8, HWP_CAPABILITIES),  # guaranteed
    _msr(8, 16, HWP_REQUEST),  # desired
    _msr(8, 0, HWP_REQUEST),  # minimum
    _msr(8, 8, HWP_REQUEST),  # maximum
    NONE,  # reduction tolerance
    NONE,  # time window
    NONE,  # wraparound time
    _msr(64, 0, MPERF),  # reference counter
    _msr(64, 0, APERF),  # delivered counter
    _msr(2, 1, HWP_STATUS),  # limited
    _msr(1, 0, PM_ENABLE),  # enable
    1,  # autonomous selection
    _msr(10, 32, HWP_REQUEST),  # activity window
    _msr(8, 24, HWP_REQUEST),  # energy preference
    0,  # reference performance
    0,  # lowest frequency
    0,  # nominal frequency
)


def processors(inputs: AcpiInputs) -> tuple[bytes, ...]:
    """Encode one device a vCPU; none when no vCPU has a choice."""
    return tuple(_processor(i, power) for i, power in enumerate(inputs.power[:MAX_PROCESSORS]))


def _processor(number: int, power: ProcessorPower) -> bytes:
    objects = [aml.name("_HID", aml.string("ACPI0007")), aml.name("_UID", aml.integer(number))]
    if power.pstates:
        objects += _performance(power)
    if power.cstates:
        objects.append(aml.name("_CST", _idle(power)))
    if power.continuous:
        objects.append(aml.name("_CPC", _continuous()))
    return aml.device(f"PR{number:02}", *objects)


def _performance(power: ProcessorPower) -> list[bytes]:
    """_PPC: all are there; _PCT: how they are set; _PSS: the states."""
    states = [
        aml.package(
            *map(
                aml.integer,
                (p.frequency_mhz, p.power_mw, p.transition_us, p.bus_master_us, p.control, p.status),
            )
        )
        for p in power.pstates
    ]
    control = _register(GenericAddress(space=FIXED_HARDWARE, bit_width=0, bit_offset=0, access_size=0, address=0))
    return [
        aml.name("_PPC", aml.ZERO),
        aml.name("_PCT", aml.package(control, control)),
        aml.name("_PSS", aml.package(*states)),
    ]


def _idle(power: ProcessorPower) -> bytes:
    states = [
        aml.package(_register(c.register), aml.integer(c.type), aml.integer(c.latency_us), aml.integer(c.power_mw))
        for c in power.cstates
    ]
    return aml.package(aml.integer(len(states)), *states)


def _continuous() -> bytes:
    entries = [aml.integer(e) if isinstance(e, int) else _register(e) for e in CONTINUOUS]
    return aml.package(aml.integer(len(entries) + 2), aml.integer(3), *entries)  # count, revision


def _register(register: GenericAddress) -> bytes:
    return resource.template(
        resource.generic_register(
            register.space, register.bit_width, register.bit_offset, register.access_size, register.address
        )
    )
