"""The outer VM where Python's programs are forks of a process that has acrn-dm's modules, for tests to which the start
is not the subject: see ``acrn_dm.testing.guest.outer.stem``.
"""

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from acrn_dm.contract.plugins import BUILTINS
from acrn_dm.testing.guest.guests import environment
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.testing.guest.process import Command
from lab.demo import places, vmm
from lab.demo.log import Log
from lab.paths import ROOT

# Python for a program of a few lines that needs the standard library alone: what ``site`` does is half of its start.
PLAIN = (sys.executable, "-S", "-c")
STEM_S = 240.0  # for what may be the first to need a stem: its imports keep the agent for half a minute of CPU
# What branches import that most of the lab's machines take: a module costs as much as thousands of a guest's exits.
ON_THE_WAY = (
    "acrn_dm.base.files.rotated",
    *("acrn_dm.boot.acpi.linker", "acrn_dm.boot.bzimage", "acrn_dm.boot.multiboot", "acrn_dm.boot.pvh"),
    *("acrn_dm.devices.uart.port", "acrn_dm.devices.virtio_console.backend_socket", "acrn_dm.devices.virtio_net.vhost"),
    *("acrn_dm.hypervisors.acrn.vm", "acrn_dm.hypervisors.kvm.vm"),
    *("acrn_dm.machine.firmware.support", "acrn_dm.management.manager_socket"),
)


def stem() -> list[str]:
    """What acrn-dm has imported when it boots a machine. It is executed, not forked, where its start is the subject: in
    the demonstration itself and by some launch lines.
    """
    installed = [entry.module for entry in importlib.metadata.entry_points(group="acrn_dm")]
    return ["acrn_dm.cli.session", "acrn_dm.machine.build", *ON_THE_WAY, *BUILTINS.values(), *installed]


@attrs.frozen
class Stemmed:
    """The outer VM as a place. All programs have one environment, so that one stem does."""

    vm: OuterVm

    def spawn(
        self, command: Command, *, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> GuestProcess:
        """As the outer VM's."""
        if isinstance(command, str) or list(command[:2]) != [sys.executable, "-m"]:
            return self.vm.spawn(command, cwd=cwd, env=env)
        return self.vm.spawn(command, cwd=cwd, env={**environment(), **(env or {})}, stem=stem())


def unpacked(machine: vmm.Machine) -> vmm.Machine:
    """The demonstration's machine with its kernel as the boot loader is to leave it: unpacking takes seconds here."""
    return attrs.evolve(machine, kernel=str(debian_kernel().quick_image))


@contextmanager
def in_stem(vm: OuterVm, log: Log, disk: Path, env: Mapping[str, str] | None = None) -> Iterator[places.Place]:
    """The place of a demonstration whose driver and acrn-dm are forks; see ``forked_demo``."""

    def drive(argv: list[str]) -> int:
        program = [sys.executable, "-m", "tests.lab.forked_demo", argv[-1]]
        process = vm.spawn(program, cwd=ROOT, env=env, stem=stem(), on_output=log.events)
        process.close_stdin()
        return process.wait(places.LIMIT).rc

    with places.in_outer_vm(vm, log, disk) as (copy, _):
        yield copy, drive
