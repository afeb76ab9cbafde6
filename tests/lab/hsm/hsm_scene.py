"""Whole machines on the emulated HSM: acrn-dm in the outer VM with the rig preloaded, and what the rig wrote."""

import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.errors import HarnessError
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.demo import vmm
from lab.demo.log import Log
from lab.demo.run import demonstrate as demonstrate_machine
from lab.hsm import preload
from lab.hsm.build import RigUnavailable
from lab.paths import empty_scratch
from tests.lab.machines.small_machine import LIMIT, Rig, Run, assert_clean
from tests.lab.stemmed import in_stem, unpacked


@attrs.define(eq=False)
class Preloading:
    """The outer VM, whose processes find the emulated HSM."""

    vm: OuterVm
    environment: Mapping[str, str]

    def spawn(self, argv: Sequence[str | Path], *, cwd: Path, stem: Sequence[str] = ()) -> GuestProcess:
        return self.vm.spawn(argv, cwd=cwd, env=self.environment, stem=stem)

    def alive(self) -> bool:
        return self.vm.alive()

    def restart(self) -> None:
        self.vm.restart()


@attrs.define(eq=False)
class Hsm:
    """Boots machines and reads what the rig wrote."""

    lab: OuterVm
    environment: Mapping[str, str]  # what puts the module below a process
    rig: Rig
    scratch: Path
    clock: str  # for the kernel's command line

    def start(
        self, *arguments: str, hypervisor: str = "hsm", cpus: int = 1, append: str = "", **how: Any
    ) -> GuestProcess:
        affinity = ",".join(str(cpu) for cpu in range(cpus))
        options = ("--cpu_affinity", affinity) if hypervisor == "hsm" else ("--cpus", str(cpus))
        return self.rig.start("--hypervisor", hypervisor, *options, *arguments, append=f"{self.clock} {append}", **how)

    def boot(self, *arguments: str, timeout: float = LIMIT, **how: Any) -> Run:
        """As the rig's, once more where it was the outer VM that hung or ended."""
        try:
            return self.rig.finish(self.start(*arguments, **how), timeout)
        except HarnessError:
            if self.rig.vm.alive():
                raise
        self.rig.vm.restart()
        for old in self.scratch.iterdir():
            old.unlink()
        return self.rig.finish(self.start(*arguments, **how), timeout)

    def assert_clean(self, run: Run, devices: int = 2) -> None:
        """The guest is content, and the module, too: no rule broken, no VM left behind."""
        assert self.violations() == []
        assert_clean(run, self.rig.digest, devices)
        calls = self.calls()
        assert calls.count("CREATE_VM") == calls.count("DESTROY_VM")
        assert calls.count("open") == calls.count("close")

    def violations(self) -> list[str]:
        file = self.scratch / "rig-report"
        return file.read_text().splitlines() if file.exists() else []

    def calls(self, *without: str) -> list[str]:
        return [row["call"] for row in self.trace() if row["call"] not in without]

    def trace(self) -> list[dict[str, Any]]:
        """Each call with its arguments."""
        return [json.loads(line) for line in (self.scratch / "rig-trace").read_text().splitlines()]

    def stats(self) -> list[dict[str, int]]:
        return [json.loads(line) for line in (self.scratch / "rig-stats").read_text().splitlines()]


def rig_in(scratch: Path, **settings: str) -> dict[str, str]:
    """The environment in which a program finds the emulated HSM, which writes what it sees into *scratch*; *settings*
    and those of our own environment, as RIG_REQUESTS=1, are the rig's (see rig.h).
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("RIG_")}
    try:
        return preload.environment(scratch, **{**settings, **own})
    except RigUnavailable as e:
        pytest.skip(str(e))


def small_machine(lab: OuterVm, scratch: Path, **settings: str) -> Hsm:
    """The small machine of the other lab tests, on the emulated HSM."""
    if not lab.alive():
        lab.restart()
    environment = rig_in(scratch, **settings)
    rig = Rig(Preloading(lab, environment), debian_kernel(), scratch)  # type: ignore[arg-type]
    return Hsm(lab, environment, rig, scratch, preload.tsc_frequency(lab))


def make_hsm(lab: OuterVm, request: pytest.FixtureRequest) -> Hsm:
    """``small_machine`` of one test; the fixture's parameter are settings of the rig."""
    return small_machine(lab, empty_scratch("hsm", request.node.name), **getattr(request, "param", {}))


def demo_command(hsm: Hsm, machine: vmm.Machine, cpus: int) -> list[str]:
    """acrn-dm with the demonstration's machine on the emulated module."""
    ids = ",".join(str(cpu) for cpu in range(cpus))
    command = [sys.executable, "-m", "acrn_dm", *vmm.command("acrn-dm", unpacked(machine))[1:]]
    command[command.index(COMMAND_LINE)] += f" {hsm.clock}"
    return [*command, "--hypervisor", "hsm", "--cpu_affinity", ids]


def demonstrate(hsm: Hsm, cpus: int, card: str = "") -> vmm.Machine:
    """Let everything be shown that ``make demo`` shows; *card* are further options of the network card."""
    log = Log()
    machine = demonstrate_machine(
        log,
        hsm.scratch,
        functools.partial(in_stem, hsm.lab, log, env=hsm.environment),
        lambda machine: demo_command(hsm, machine, cpus),
        card=card,
    )
    assert log.failures() == {}
    assert hsm.violations() == []
    assert hsm.calls().count("DESTROY_VM") == 1
    return machine
