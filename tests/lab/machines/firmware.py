"""Debian's firmware for virtual machines in the lab: its files, and an outer VM that stands it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.machines.small_machine import Run

IMAGE = Path("/usr/share/ovmf/OVMF.fd")
CODE, VARIABLES = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
TICK = "/sys/module/kvm/parameters/min_timer_period_us"
SLOW_TICK_US, DEFAULT_TICK_US = 1_000_000, 200
FIRMWARE_LIMIT = 300.0  # a start by firmware takes 45 s, and more beside others' work


@attrs.define(eq=False)
class Unhurried:
    """The outer VM, with firmware's timer ticks no closer than SLOW_TICK_US.

    EDK II writes CR8 at the end of each interrupt. Where the next one waits already, QEMU 7.2's emulated SVM fails an
    assertion and ends (helper_write_crN raises a virtual interrupt without the lock). That happens where a virtual
    CPU is held up for a tick's length, so a tick is longer than any processor of the lab waits for its turn: beside two
    more machines on two CPUs, 50 ms were too few. The firmware's own waits do not get longer by it.
    """

    vm: Any

    def spawn(self, argv: Sequence[str | Path], **how: Any) -> GuestProcess:
        set_tick(self.vm, SLOW_TICK_US)
        return self.vm.spawn(argv, **how)

    def run(self, *arguments: Any, **how: Any) -> Any:
        return self.vm.run(*arguments, **how)

    def alive(self) -> bool:
        return self.vm.alive()

    def restart(self) -> None:
        self.vm.restart()


def set_tick(vm: Any, microseconds: int) -> None:
    result = vm.run(f"echo {microseconds} > {TICK}")
    assert result.rc == 0, result.stderr


@contextmanager
def firmware(lab: OuterVm) -> Iterator[None]:
    """It is there; the outer VM is as before afterwards."""
    if not all(file.exists() for file in (IMAGE, CODE, VARIABLES)):
        pytest.skip("no firmware: install ovmf")
    yield
    if lab.alive():
        set_tick(lab, DEFAULT_TICK_US)


def assert_from_firmware(run: Run) -> None:
    """The kernel was started by firmware, not by us."""
    assert run.report["firmware"] == ["efi"] * len(run.report["boot"])
    assert {dmi.split()[1] for dmi in run.report["dmi"]} == {"acrn_dm"}
