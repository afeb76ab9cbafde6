"""``--dry-run``: a ``MachineReport`` as tables for people or as JSON for programs."""

import json
from collections.abc import Sequence

import attrs

from acrn_dm.machine.report import BarReport, DeviceReport, MachineReport, RangeReport

DEVICE_COLUMNS = ("SLOT", "DEVICE", "ID", "INTERRUPTS", "BACKEND", "PROVIDED BY")
BAR_COLUMNS = ("SLOT", "BAR", "KIND", "ADDRESS", "SIZE")
UART_COLUMNS = ("PORT", "IO", "IRQ", "BACKEND")


def render_json(report: MachineReport, missing: Sequence[str]) -> str:
    """One object: the report's fields, addresses and sizes as numbers, and ``missing``, one text for each thing."""
    return json.dumps({**attrs.asdict(report), "missing": list(missing)}, indent=2)


def render_tables(report: MachineReport) -> str:
    """The machine in a few aligned tables."""
    head = [
        ("machine", report.name),
        ("hypervisor", report.hypervisor),
        ("CPUs", str(report.vcpus)),
        ("memory", ", ".join(_memory(r) for r in report.memory)),
        ("boot", report.boot or "-"),
    ]
    parts = [_align(head)]
    if report.devices:
        parts.append(_align([DEVICE_COLUMNS, *map(_device, report.devices)]))
    bars = [(device.bdf, *_bar(bar)) for device in report.devices for bar in device.bars]
    if bars:
        parts.append(_align([BAR_COLUMNS, *bars]))
    if report.uarts:
        uarts = [(u.port, f"{u.io_base:#x}", str(u.irq), u.backend or "-") for u in report.uarts]
        parts.append(_align([UART_COLUMNS, *uarts]))
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def size_text(size: int) -> str:
    """A size in the largest unit that divides it: ``512 MiB``."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size and not size % (1 << shift):
            return f"{size >> shift} {unit}"
    return f"{size} B"


def _memory(part: RangeReport) -> str:
    return f"{part.gpa:#x}..{part.gpa + part.size - 1:#x} ({size_text(part.size)})"


def _device(device: DeviceReport) -> tuple[str, ...]:
    ways = [f"{device.vectors} MSI-X"] if device.vectors else []
    ways += ["MSI"] if device.msi else []
    ways += [f"INTx, GSI {device.gsi}"] if device.gsi is not None else []
    identity = f"{device.vendor:04x}:{device.device:04x}"
    return (device.bdf, device.kind, identity, "; ".join(ways) or "-", device.backend or "-", device.provider or "-")


def _bar(bar: BarReport) -> tuple[str, ...]:
    return (str(bar.index), bar.kind, f"{bar.address:#x}", size_text(bar.size))


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
