"""What a guest sees of a machine made with POLLING: for Windows, with one message for each device, and polled."""

from tests.lab.machines.small_machine import Run

POLLING = ("--windows", "--virtio_msi", "--virtio_poll", "200000")


def assert_sees_windows(run: Run) -> None:
    """Linux has a driver for MSI-X and for lines, none for one message: what it shows is that it goes on by lines."""
    assert [line for line in run.output.splitlines() if "strict: " in line] == []
    lines = run.report["lspci"]
    subsystems = [line.split("[")[-1] for line in lines if "Subsystem:" in line]
    assert "108e:0002]" in subsystems  # the disk, and not the console
    assert "1af4:0003]" in subsystems
    assert sum("MSI: Enable- Count=1/1 Maskable+ 64bit+" in line for line in lines) == 2
    assert not any("MSI-X" in line for line in lines)
    interrupts, messages = map(int, run.one("interrupts").split())
    assert (interrupts > 0, messages) == (True, 0)
