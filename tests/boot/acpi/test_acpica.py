"""The tables as ACPICA, the interpreter of Linux, reads them: disassembled, recompiled, executed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from acrn_dm.boot.acpi import AcpiInputs, build_acpi
from acrn_dm.contract.processors import CState, GenericAddress, ProcessorPower, PState

SMALL = AcpiInputs(apic_ids=(0,), rtc=False)
FULL = AcpiInputs(
    apic_ids=(0, 1, 300),
    prt=tuple((slot, pin, 16 + (slot + pin) % 8) for slot in range(32) for pin in range(4)),
    uarts=(("COM1", 0x3F8, 4), ("COM2", 0x2F8, 3), ("COM5", 0x9000, 10)),
    last_bus=3,
    pm_timer_port=0x408,
    s3=True,
)
POWER = ProcessorPower(
    pstates=(
        PState(frequency_mhz=2400, power_mw=15000, transition_us=10, bus_master_us=10, control=0x1800, status=0x1800),
        PState(frequency_mhz=1200, power_mw=5000, transition_us=10, bus_master_us=10, control=0xC00, status=0xC00),
    ),
    cstates=(
        CState(
            register=GenericAddress(space=0x7F, bit_width=1, bit_offset=2, access_size=1, address=0),
            type=1,
            latency_us=1,
            power_mw=1000,
        ),
        CState(
            register=GenericAddress(space=1, bit_width=8, bit_offset=0, access_size=0, address=0x415),
            type=2,
            latency_us=80,
            power_mw=500,
        ),
    ),
)
POWERED = AcpiInputs(apic_ids=(2, 6), power=(POWER, ProcessorPower(continuous=True)))
MACHINES = pytest.mark.parametrize("inputs", [SMALL, FULL, POWERED], ids=["small", "full", "power states"])
TABLES = ["RSDT", "XSDT", "APIC", "FACP", "MCFG", "FACS", "DSDT"]
COMPLAINT = re.compile(r"error|warning|remark|invalid|incorrect|truncat|terminates|unknown|exceed", re.IGNORECASE)


def run(tool: str, *args: str, cwd: Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing: install acpica-tools")
    done = subprocess.run([tool, *args], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def write_table(signature: str, inputs: AcpiInputs, folder: Path) -> bytes:
    data = next(data for _, data in build_acpi(inputs) if data[:4].decode() == signature)
    (folder / "table.dat").write_bytes(data)
    return data


def complaints(text: str) -> list[str]:
    quiet = re.compile(r"0 Errors, 0 Warnings, 0 Remarks")
    return [line for line in text.splitlines() if COMPLAINT.search(quiet.sub("", line))]


@MACHINES
@pytest.mark.parametrize("signature", TABLES)
def test_table_disassembles_without_complaint(signature: str, inputs: AcpiInputs, tmp_path: Path) -> None:
    write_table(signature, inputs, tmp_path)
    output = run("iasl", "-d", "table.dat", cwd=tmp_path)
    assert complaints(output) == []
    assert complaints((tmp_path / "table.dsl").read_text()) == []


@MACHINES
def test_recompiled_dsdt_is_ours_byte_for_byte(inputs: AcpiInputs, tmp_path: Path) -> None:
    original = write_table("DSDT", inputs, tmp_path)
    run("iasl", "-d", "table.dat", cwd=tmp_path)
    output = run("iasl", "-tc", "table.dsl", cwd=tmp_path)
    assert "0 Errors, 0 Warnings, 0 Remarks" in output
    # The compiler puts its own name and version into the header, which changes the checksum.
    recompiled = (tmp_path / "table.aml").read_bytes()
    assert recompiled[36:] == original[36:]


@MACHINES
@pytest.mark.parametrize("signature", ["APIC", "FACP", "MCFG", "FACS"])
def test_recompiled_data_table_is_ours_but_for_the_compilers_name(
    signature: str, inputs: AcpiInputs, tmp_path: Path
) -> None:
    original = write_table(signature, inputs, tmp_path)
    run("iasl", "-d", "table.dat", cwd=tmp_path)
    output = run("iasl", "table.dsl", cwd=tmp_path)
    assert complaints(output) == []
    assert (tmp_path / "table.aml").read_bytes()[36:] == original[36:]


def test_interpreter_finds_every_device(tmp_path: Path) -> None:
    write_table("DSDT", FULL, tmp_path)
    devices = run("acpiexec", "-b", "namespace", "table.dat", cwd=tmp_path)
    for name in ("PCI0", "COM1", "COM2", "COM5", "RTC", "MBRD"):
        assert re.search(rf"\b{name}_? +Device", devices), name


def test_interpreter_reads_the_windows(tmp_path: Path) -> None:
    write_table("DSDT", FULL, tmp_path)
    output = run("acpiexec", "-b", "resources \\_SB.PCI0", "table.dat", cwd=tmp_path)
    assert complaints(output) == []
    for window in ("00000040000000", "0000007FFFFFFFFF", "DFFFFFFF"):
        assert window in output.upper().replace("0X", "")


OSC_UUID = "(5B4DDB33F71F1C4096577441C03DD766)"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (f"{OSC_UUID} 1 3 (000000001F0000001F000000)", "10 00 00 00 1F 00 00 00 1C 00 00 00"),
        (f"{OSC_UUID} 1 3 (000000001F00000010000000)", "00 00 00 00 1F 00 00 00 10 00 00 00"),
        (f"{OSC_UUID} 2 3 (000000001F00000010000000)", "08 00 00 00 1F 00 00 00 10 00 00 00"),
        ("(00000000000000000000000000000000) 1 3 (000000001F00000010000000)", "04 00 00 00 1F 00 00 00 10 00 00 00"),
    ],
    ids=["masks hot-plug", "grants", "unknown revision", "unknown UUID"],
)
def test_interpreter_runs_osc(arguments: str, answer: str, tmp_path: Path) -> None:
    write_table("DSDT", FULL, tmp_path)
    output = run("acpiexec", "-b", f"evaluate \\_SB.PCI0._OSC {arguments}", "table.dat", cwd=tmp_path)
    assert answer in output, output


def test_interpreter_reads_the_power_states(tmp_path: Path) -> None:
    write_table("DSDT", POWERED, tmp_path)
    output = run("acpiexec", "-b", "evaluate \\_SB.PR00._PSS", "table.dat", cwd=tmp_path)
    for value in (2400, 15000, 10, 0x1800, 1200, 5000, 0xC00):
        assert f"= {value:016X}" in output, output
    output = run("acpiexec", "-b", "evaluate \\_SB.PR00._CST", "table.dat", cwd=tmp_path)
    assert "= 0000000000000050" in output  # 80 us


def test_interpreter_reads_continuous_performance(tmp_path: Path) -> None:
    write_table("DSDT", POWERED, tmp_path)
    output = run("acpiexec", "-b", "evaluate \\_SB.PR01._CPC", "table.dat", cwd=tmp_path)
    assert "Contains 23 Elements" in output, output
