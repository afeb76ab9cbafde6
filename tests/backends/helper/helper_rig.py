"""What the tests of devices in processes of their own share."""

import os
import signal
import time
from pathlib import Path

import acrn_dm_rng

from acrn_dm.backends.helper.backend import HelperBackend
from acrn_dm.backends.helper.child import PROGRAM, Child
from acrn_dm.backends.helper.supervisor import Supervisor
from acrn_dm.devices import virtio_blk, virtio_console, virtio_net
from acrn_dm.pci.function import PciFunction
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import Completion
from acrn_dm.virtio.pci.transport import VirtioPci

PATIENCE_S = 60.0


def sim() -> SimMachine:
    return SimMachine(plugins=[virtio_blk, virtio_console, virtio_net, acrn_dm_rng])


def backend(function: PciFunction) -> HelperBackend:
    assert isinstance(function, VirtioPci)
    helper = function.data_plane.backend
    assert isinstance(helper, HelperBackend)
    return helper


def supervisor(function: PciFunction) -> Supervisor:
    door = backend(function).door
    assert isinstance(door, Supervisor)
    return door


def child(function: PciFunction) -> Child:
    """The process that serves *function* now."""
    present = supervisor(function)._child
    assert present is not None
    return present


def serving(function: PciFunction) -> int:
    """Which process serves *function*; 0: none has been seen to."""
    present = supervisor(function)._child
    return present.pid if present is not None and present.taken else 0


def kill(function: PciFunction) -> int:
    """SIGKILL to its process; returns which that was."""
    pid = child(function).pid
    os.kill(pid, signal.SIGKILL)
    return pid


def gone(pid: int, seconds: float = PATIENCE_S) -> bool:
    """Whether process *pid* is none of ours any more, within *seconds*: a zombie counts as gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if PROGRAM.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def answers(machine: SimMachine, driver: VirtioDriver, queue: int = 0) -> list[Completion]:
    """The next completions in *queue*, one or more."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        machine.settle()
        if done := driver.queue(queue).completed():
            return done
    raise AssertionError(f"no answer; {machine.failures}")


def answer(machine: SimMachine, driver: VirtioDriver, queue: int = 0) -> Completion:
    """The next completion in *queue*, which comes alone."""
    (one,) = answers(machine, driver, queue)
    return one
