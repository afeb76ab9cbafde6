"""acrn_dm.cli.shown.report: a machine as tables and as JSON."""

import json

import pytest

from acrn_dm.cli.shown.report import render_json, render_tables, size_text
from acrn_dm.machine.report import BarReport, DeviceReport, MachineReport, RangeReport, UartReport

REPORT = MachineReport(
    name="vm1",
    hypervisor="kvm",
    vcpus=2,
    memory=(RangeReport(gpa=0, size=0x8000_0000), RangeReport(gpa=0x1_0000_0000, size=0x4000_0000)),
    boot="bzImage /boot/vmlinuz",
    devices=(
        DeviceReport(bdf="0:0.0", kind="hostbridge", vendor=0x1275, device=0x1275, provider="plugin hostbridge"),
        DeviceReport(
            bdf="0:3.0",
            kind="virtio-blk",
            vendor=0x1AF4,
            device=0x1042,
            bars=(
                BarReport(index=0, kind="io", address=0x2000, size=64),
                BarReport(index=4, kind="mem64", address=0x40_0000_0000, size=0x4000),
            ),
            vectors=2,
            gsi=16,
            backend="vbs-u: disk.img",
            provider="plugin virtio_blk",
        ),
    ),
    uarts=(UartReport(port="COM1", io_base=0x3F8, irq=4, backend="stdio"),),
    notes=("a remark",),
)

TABLES = """\
machine     vm1
hypervisor  kvm
CPUs        2
memory      0x0..0x7fffffff (2 GiB), 0x100000000..0x13fffffff (1 GiB)
boot        bzImage /boot/vmlinuz

SLOT   DEVICE      ID         INTERRUPTS             BACKEND          PROVIDED BY
0:0.0  hostbridge  1275:1275  -                      -                plugin hostbridge
0:3.0  virtio-blk  1af4:1042  2 MSI-X; INTx, GSI 16  vbs-u: disk.img  plugin virtio_blk

SLOT   BAR  KIND   ADDRESS       SIZE
0:3.0  0    io     0x2000        64 B
0:3.0  4    mem64  0x4000000000  16 KiB

PORT  IO     IRQ  BACKEND
COM1  0x3f8  4    stdio

note: a remark"""


def test_tables_are_aligned() -> None:
    assert render_tables(REPORT) == TABLES


def test_machine_without_devices_has_only_its_head() -> None:
    bare = MachineReport(name="vm1", hypervisor="kvm", vcpus=1, memory=())
    assert render_tables(bare).count("\n\n") == 0


def test_json_has_every_field_and_what_is_missing() -> None:
    shown = json.loads(render_json(REPORT, ["no tap"]))
    assert shown["missing"] == ["no tap"]
    assert shown["memory"][1] == {"gpa": 0x1_0000_0000, "size": 0x4000_0000}
    assert shown["devices"][1]["bars"][0] == {"index": 0, "kind": "io", "address": 0x2000, "size": 64}


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (100, "100 B"), (1024, "1 KiB"), (1536, "1536 B"), (5 << 20, "5 MiB"), (1 << 40, "1024 GiB")],
)
def test_size_is_shown_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert size_text(size) == text
