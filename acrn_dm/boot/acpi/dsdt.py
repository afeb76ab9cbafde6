"""The DSDT: the host bridge with its windows and interrupt routing, the ISA devices, the sleep states.

Source: ACPI 6.3 chapters 6 and 7; PCI Firmware 3.2 sections 4.1 (ECAM reservation) and 4.5 (_OSC).
"""

from acrn_dm.base import address_map as layout
from acrn_dm.boot.acpi import aml, resource
from acrn_dm.boot.acpi.inputs import AcpiInputs
from acrn_dm.boot.acpi.processors import processors

_PCI_OSC_UUID = "33DB4D5B-1FF7-401C-9657-7441C03DD766"
# _OSC status bits, first dword.
_OSC_UNKNOWN_UUID = 0x04
_OSC_UNKNOWN_REVISION = 0x08
_OSC_MASKED = 0x10
# Control the guest gets: PME, AER, PCI Express capability. Not hot-plug (there is no controller) and not LTR.
_OSC_GRANTED = 0x1C


def dsdt_body(inputs: AcpiInputs) -> bytes:
    """Encode the AML behind the DSDT's header."""
    sleep_states = [aml.name("_S5", aml.package(aml.integer(5), aml.ZERO))]
    if inputs.s3:
        sleep_states.insert(0, aml.name("_S3", aml.package(aml.integer(3), aml.ZERO)))
    bridge = aml.device("PCI0", *_host_bridge(inputs), *_isa_devices(inputs))
    return b"".join(sleep_states) + aml.scope("_SB", bridge, _motherboard(inputs), *processors(inputs))


def _host_bridge(inputs: AcpiInputs) -> tuple[bytes, ...]:
    windows = resource.template(
        resource.word_bus_number(0, inputs.last_bus),
        resource.io(layout.PCI_CONFIG_ADDRESS, layout.PCI_CONFIG_END - layout.PCI_CONFIG_ADDRESS),
        resource.word_io(0, layout.PCI_CONFIG_ADDRESS - 1),
        resource.word_io(layout.PCI_CONFIG_END, 0xFFFF),
        resource.dword_memory(*inputs.mmio32),
        resource.qword_memory(*inputs.mmio64),
    )
    routing = [aml.name("_PRT", aml.package(*(_route(*entry) for entry in inputs.prt)))] if inputs.prt else []
    return (
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.ZERO),
        aml.name("_SEG", aml.ZERO),
        aml.name("_BBN", aml.ZERO),
        aml.name("_CRS", windows),
        *routing,
        _osc(),
    )


def _route(slot: int, pin: int, gsi: int) -> bytes:
    """One _PRT entry: all functions of *slot*; a source of 0 means *gsi* itself, level and active low (6.2.13)."""
    return aml.package(aml.integer(slot << 16 | 0xFFFF), aml.integer(pin), aml.ZERO, aml.integer(gsi))


def _osc() -> bytes:
    status, control = aml.name_string("CDW1"), aml.name_string("CDW3")
    granted = aml.local(0)

    def flag(bit: int) -> bytes:
        return aml.or_(status, aml.integer(bit), status)

    return aml.method(
        "_OSC",
        4,  # UUID, revision, count of dwords, capabilities buffer
        aml.create_dword_field(aml.arg(3), 0, "CDW1"),
        aml.if_(
            aml.equal(aml.arg(0), aml.uuid_buffer(_PCI_OSC_UUID)),
            aml.create_dword_field(aml.arg(3), 8, "CDW3"),
            aml.and_(control, aml.integer(_OSC_GRANTED), granted),
            aml.if_(aml.not_equal(aml.arg(1), aml.ONE), flag(_OSC_UNKNOWN_REVISION)),
            aml.if_(aml.not_equal(control, granted), flag(_OSC_MASKED)),
            aml.store(granted, control),
        ),
        aml.else_(flag(_OSC_UNKNOWN_UUID)),
        aml.return_(aml.arg(3)),
        serialized=True,
    )


def _isa_devices(inputs: AcpiInputs) -> tuple[bytes, ...]:
    devices = [_uart(i, *uart) for i, uart in enumerate(inputs.uarts, start=1)]
    if inputs.rtc:
        devices.append(_isa_device("RTC", "PNP0B00", resource.io(layout.RTC_INDEX, 2), resource.irq_no_flags(8)))
    return tuple(devices)


def _isa_device(path: str, hid: str, *resources: bytes) -> bytes:
    return aml.device(path, aml.name("_HID", aml.eisa_id(hid)), aml.name("_CRS", resource.template(*resources)))


def _uart(uid: int, path: str, base: int, irq: int) -> bytes:
    return aml.device(
        path,
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(uid)),
        aml.name("_DDN", aml.string(path)),
        aml.name("_CRS", resource.template(resource.io(base, 8), resource.irq_no_flags(irq))),
    )


def _motherboard(inputs: AcpiInputs) -> bytes:
    """Reserve what no device claims: the ECAM (a guest distrusts an MCFG that nothing reserves), the PM ports, and the
    keyboard controller's, which is there for resets and firmware: nothing is plugged in that a driver could use.
    """
    descriptors = [
        resource.memory32_fixed(inputs.ecam_base, (inputs.last_bus + 1) * layout.ECAM_BUS_SIZE),
        resource.io(layout.KEYBOARD_DATA, 1),
        resource.io(layout.KEYBOARD_STATUS, 1),
        resource.io(layout.SMI_COMMAND, 1),
        resource.io(layout.PM1A_EVENT, 4),
        resource.io(layout.PM1A_CONTROL, 2),
        resource.io(layout.ELCR, 2),
    ]
    if inputs.pm_timer_port is not None:
        descriptors.append(resource.io(inputs.pm_timer_port, 4))
    return aml.device(
        "MBRD",
        aml.name("_HID", aml.eisa_id("PNP0C02")),
        aml.name("_UID", aml.ZERO),
        aml.name("_CRS", resource.template(*descriptors)),
    )
