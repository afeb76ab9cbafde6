"""acrn_dm.cli.values and .platform: the grammar of single values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from acrn_dm.base.address_map import MIB
from acrn_dm.cli import platform, values
from acrn_dm.cli.values import LogSettings
from acrn_dm.contract.config import Firmware, UartSpec
from acrn_dm.contract.interrupt_monitor import InterruptMonitor


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("512", 512),
        ("512b", 512),
        ("512B", 512),
        ("536870912", 512),
        ("536870912b", 512),
        ("512M", 512),
        ("512m", 512),
        ("512MB", 512),
        ("512MiB", 512),
        ("2g", 2048),
        ("2G", 2048),
        ("524288k", 512),
        ("0x200M", 512),
        ("01000m", 512),
        ("4096M", 4096),
        ("128", 128),
        ("134217728", 128),
        ("134217727", 134217727),
        ("258048", 258048),
    ],
)
def test_memory_size_is_read_in_every_unit(text: str, mib: int) -> None:
    assert values.memory_size(text) == mib * MIB


@pytest.mark.parametrize(
    "text", ["", "M", "-512M", "512T", "512Mx", "1.5G", "5 1 2", "09M", "0x", "512MM", "9" * 21, "\u0663"]
)
def test_memory_size_malformed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"memory size|not a number"):
        values.memory_size(text)


@pytest.mark.parametrize(
    ("text", "kind", "config", "bootable"),
    [
        ("3,virtio-blk,/a,b,ro", "virtio-blk", "/a,b,ro", False),
        ("3,virtio-blk,b,/a", "virtio-blk", "/a", True),
        ("3,virtio-blk,b", "virtio-blk", "b", False),  # only "b," is the boot mark
        ("3,virtio-blk,bb,/a", "virtio-blk", "bb,/a", False),
        ("3,lpc", "lpc", "", False),
        ("3,lpc,", "lpc", "", False),
        ("3,virtio-blk,,x", "virtio-blk", ",x", False),
    ],
)
def test_slot_rest_belongs_to_the_device(text: str, kind: str, config: str, bootable: bool) -> None:
    spec = values.pci_slot(text)
    assert (spec.kind, spec.text, spec.bootable) == (kind, config, bootable)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("com1,stdio", UartSpec(number=1, backend="stdio")),
        ("COM2,/dev/pts/3", UartSpec(number=2, backend="/dev/pts/3")),
        ("com3,tcp:5555", UartSpec(number=3, backend="tcp:5555")),
        ("com4,/dev/odd,name", UartSpec(number=4, backend="/dev/odd,name")),
        ("com1", UartSpec(number=1, backend="")),
        ("com1,stdio,wait", UartSpec(number=1, backend="stdio", wait=True)),
        ("com5,/dev/pts/1,wait", UartSpec(number=5, backend="/dev/pts/1", wait=True)),
        ("com5,/dev/pts/1,0x9000,5,wait", UartSpec(number=5, backend="/dev/pts/1", io_base=0x9000, irq=5, wait=True)),
        ("com5,/dev/pts/1", UartSpec(number=5, backend="/dev/pts/1")),
        ("com5,/dev/pts/1,0x9000,5", UartSpec(number=5, backend="/dev/pts/1", io_base=0x9000, irq=5)),
        ("com5,/dev/pts/1,0,5", UartSpec(number=5, backend="/dev/pts/1")),
        ("com5,/dev/pts/1,0x9000,0", UartSpec(number=5, backend="/dev/pts/1")),
    ],
)
def test_uart_is_read(text: str, spec: UartSpec) -> None:
    assert values.lpc_uart(text) == spec


@pytest.mark.parametrize(("text", "ids"), [("1", (1,)), ("0,2", (0, 2)), ("64,66", (64, 66)), ("4,6", (4, 6))])
def test_lapic_ids_are_decimal(text: str, ids: tuple[int, ...]) -> None:
    assert values.lapic_ids(text) == ids


def test_logger_setting_of_the_generated_scripts_is_read() -> None:
    got = values.logger_setting("console,level=4;kmsg,level=3;disk,level=5")
    assert got == LogSettings(console=4, kmsg=3, disk=5)
    assert values.logger_setting("disk,level=1") == LogSettings(console=3, kmsg=None, disk=1)
    # The original's guide for QEMU has one above the last; it takes all, as 5 does.
    assert values.logger_setting("kmsg,level=6") == LogSettings(kmsg=5)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.seconds, "1.5", 1.5),
        (values.seconds, "0", 0.0),
        (values.poll_period, "1000000", 1_000_000),
        (values.path, "~nobody-of-that-name/x", Path("~nobody-of-that-name/x")),
        (values.uuid, "0F6B2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10", UUID("0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10")),
        (platform.ovmf, "w,/a", Firmware(image=Path("/a"), writeback=True)),
        (platform.ovmf, "code=/c,vars=/v", Firmware(code=Path("/c"), variables=Path("/v"))),
        (
            platform.interrupt_monitor,
            "10000,10,1,100",
            InterruptMonitor(threshold=10000, period_s=10, delay_ms=1, duration_ms=100),
        ),
        (platform.mmio_device, "0xFED40000,0x00005000", (0xFED40000, 0x5000)),
        (platform.mmio_device, "fed40000,5000", (0xFED40000, 0x5000)),
        (platform.acpi_device, "MSFT0101", "MSFT0101"),
        (platform.acpi_device, "INTC1055,1", "INTC1055,1"),
        (platform.ssram, "L2,vcpu=0,1,size=4K;l3,vcpu=all,size=2M;", "L2,vcpu=0,1,size=4K;l3,vcpu=all,size=2M;"),
        (platform.vtpm, "sock_path=/run/tpm", Path("/run/tpm")),
        (platform.power_channel, "uart,allow_trigger_s5", "uart,allow_trigger_s5"),
    ],
)
def test_value_is_read(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value
