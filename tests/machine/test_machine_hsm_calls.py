"""A whole machine and the calls of ACRN's kernel module: the eventfds of a device that runs are among them, and any of
them may fail.

What one virtual machine does by itself is in ``hypervisors/test_hsm_sequences``; here is what devices, the main path
and the command line make of it.
"""

import errno
import gc
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.events import eventfd
from acrn_dm.cli import app
from acrn_dm.machine.machine import StopReason
from acrn_dm.testing.driver import NEEDS_RESET
from tests.hypervisors.acrn.hsm_machine import DEBUG, FULL_RESET, SYSTEM_RESET, Guest, Program, Scene, make_scene
from tests.patience import comes_true

CREATE = ["open", "CREATE_VM", "SETUP_ASYNCIO", "SETUP_VM_EVENT_RING", "SET_MEMSEG", "SET_IRQLINE"]
TABLES = ["PM_GET_CPU_STATE"] * 2  # performance and idle states of the one vCPU, for the DSDT
FIRST_START = [*TABLES, "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM"]
START = [*TABLES, "SET_VCPU_REGS", "START_VM"]
DRIVER_OK = ["IOEVENTFD +", "IRQFD +"]
DEVICE_RESET = ["IOEVENTFD -", "IRQFD -"]
DESTROY = ["DESTROY_VM", "close"]


def parts_of_the_process() -> tuple[set[str], int]:
    """Descriptors and how many threads."""
    return set(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A machine that leaves neither descriptors nor threads behind, and nothing in the module."""
    eventfd._choose()  # what is opened once for the process
    gc.collect()  # what tests before this one have left to it
    before = parts_of_the_process()
    it = make_scene(tmp_path, monkeypatch)
    yield it
    it.close()
    # A disk's worker that was told to end does so on its own time: close waits for its requests, not for the thread.
    assert comes_true(lambda: parts_of_the_process() == before), (parts_of_the_process(), before)


def then(last: Callable[[Guest], object]) -> Program:
    """A program that uses its disk, and ends so."""

    def program(guest: Guest) -> None:
        guest.read_disk()
        last(guest)

    return program


POWER_OFF = then(Guest.power_off)
SUSPEND = then(Guest.suspend)
RESET = then(lambda guest: guest.reset(SYSTEM_RESET))
POWER_CYCLE = then(lambda guest: guest.reset(FULL_RESET))


def test_start_run_power_off(scene: Scene) -> None:
    assert scene.run(POWER_OFF) is StopReason.POWEROFF
    assert scene.sequence() == [
        *(*CREATE, *FIRST_START, *DRIVER_OK),
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", *DEVICE_RESET, *DESTROY),
    ]


def test_driver_that_resets_its_device_takes_the_eventfds_away_before_the_end(scene: Scene) -> None:
    def reset_device(guest: Guest) -> None:
        driver = guest.read_disk()
        driver.reset()
        guest.power_off()

    assert scene.run(reset_device) is StopReason.POWEROFF
    assert scene.sequence() == [
        *(*CREATE, *FIRST_START, *DRIVER_OK, *DEVICE_RESET),
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", *DESTROY),
    ]


def test_system_reset(scene: Scene) -> None:
    """The module keeps its bindings over RESET_VM, so they have to be taken away."""
    assert scene.run(RESET, POWER_OFF) is StopReason.POWEROFF
    assert scene.sequence() == [
        *(*CREATE, *FIRST_START, *DRIVER_OK),
        *("PAUSE_VM", "CLEAR_VM_IOREQ", *DEVICE_RESET, "RESET_VM"),
        *(*START, *DRIVER_OK),
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", *DEVICE_RESET, *DESTROY),
    ]


def test_full_reset(scene: Scene) -> None:
    assert scene.run(POWER_CYCLE, POWER_OFF) is StopReason.POWEROFF
    assert scene.sequence() == [
        *(*CREATE, *FIRST_START, *DRIVER_OK),
        *("PAUSE_VM", *DEVICE_RESET, "DESTROY_IOREQ_CLIENT", *DESTROY),
        *(*CREATE, *FIRST_START, *DRIVER_OK),
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", *DEVICE_RESET, *DESTROY),
    ]


def test_suspend_and_resume(scene: Scene) -> None:
    """Tables stay, so the hypervisor is not asked for power states again."""
    assert scene.run(SUSPEND, POWER_OFF) is StopReason.POWEROFF
    assert scene.sequence() == [
        *(*CREATE, *FIRST_START, *DRIVER_OK),
        *("PAUSE_VM", "CLEAR_VM_IOREQ", *DEVICE_RESET, "RESET_VM", "SET_VCPU_REGS", "START_VM"),
        *DRIVER_OK,
        *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", *DEVICE_RESET, *DESTROY),
    ]


# Failures, as the user sees them

PERM, INVAL, NOMEM, FAULT, BADF = errno.EPERM, errno.EINVAL, errno.ENOMEM, errno.EFAULT, errno.EBADF
OPENING = (errno.ENOENT, errno.EACCES, errno.ENODEV, errno.ENXIO, PERM, NOMEM, errno.EMFILE)
CREATING = (INVAL, NOMEM, FAULT, PERM)


@attrs.frozen(kw_only=True)
class Failure:
    """Calls that fail, of *call* those from the *nth* on, and the programs that get there."""

    call: str
    errors: tuple[int, ...]
    programs: tuple[Program, ...] = (POWER_OFF,)
    nth: int = 1
    times: int = 1


FATAL = {
    "start": [
        Failure(call="open", errors=OPENING),
        Failure(call="CREATE_VM", errors=CREATING, times=10),
        Failure(call="SET_MEMSEG", errors=CREATING),
        Failure(call="SET_IRQLINE", errors=(PERM, INVAL)),
        Failure(call="SET_VCPU_REGS", errors=CREATING),
        Failure(call="CREATE_IOREQ_CLIENT", errors=(errno.EEXIST, INVAL)),
        Failure(call="START_VM", errors=(PERM, INVAL)),
    ],
    "run": [
        Failure(call="ATTACH_IOREQ_CLIENT", errors=(errno.ENODEV, INVAL, BADF)),
        Failure(call="NOTIFY_REQUEST_FINISH", errors=(PERM, INVAL, FAULT), nth=10),
    ],
    "system reset": [
        Failure(call="PAUSE_VM", errors=(PERM, INVAL), programs=(RESET,)),
        Failure(call="CLEAR_VM_IOREQ", errors=(INVAL,), programs=(RESET,)),
        Failure(call="RESET_VM", errors=(PERM, INVAL), programs=(RESET,)),
        Failure(call="SET_VCPU_REGS", errors=(PERM,), programs=(RESET,), nth=2),
        Failure(call="START_VM", errors=(PERM,), programs=(RESET,), nth=2),
    ],
    "full reset": [
        Failure(call="PAUSE_VM", errors=(PERM, INVAL), programs=(POWER_CYCLE,)),
        Failure(call="DESTROY_IOREQ_CLIENT", errors=(INVAL,), programs=(POWER_CYCLE,)),
        Failure(call="DESTROY_VM", errors=(PERM, INVAL), programs=(POWER_CYCLE,)),
        Failure(call="open", errors=OPENING, programs=(POWER_CYCLE,), nth=2),
        Failure(call="CREATE_VM", errors=CREATING, programs=(POWER_CYCLE,), nth=2, times=10),
        Failure(call="SET_MEMSEG", errors=CREATING, programs=(POWER_CYCLE,), nth=2),
        Failure(call="SET_IRQLINE", errors=(PERM, INVAL), programs=(POWER_CYCLE,), nth=2),
        Failure(call="CREATE_IOREQ_CLIENT", errors=(INVAL,), programs=(POWER_CYCLE,), nth=2),
    ],
    "suspend": [
        Failure(call="PAUSE_VM", errors=(PERM, INVAL), programs=(SUSPEND,)),
        Failure(call="CLEAR_VM_IOREQ", errors=(INVAL,), programs=(SUSPEND,)),
        Failure(call="RESET_VM", errors=(PERM, INVAL), programs=(SUSPEND,)),
        Failure(call="SET_VCPU_REGS", errors=(PERM,), programs=(SUSPEND,), nth=2),
        Failure(call="START_VM", errors=(PERM,), programs=(SUSPEND,), nth=2),
    ],
    "power off": [
        Failure(call="PAUSE_VM", errors=(PERM, INVAL)),
        Failure(call="DESTROY_IOREQ_CLIENT", errors=(INVAL,)),
        Failure(call="DESTROY_VM", errors=(PERM, INVAL)),
    ],
}
BEARABLE = [
    Failure(call="SETUP_ASYNCIO", errors=(errno.ENOTTY, INVAL, NOMEM)),
    Failure(call="SETUP_VM_EVENT_RING", errors=(errno.ENOTTY, INVAL, NOMEM)),
    Failure(call="PM_GET_CPU_STATE", errors=(FAULT,), times=2),  # EPERM is how the hypervisor says that it knows none
    Failure(call="IOEVENTFD", errors=(NOMEM,)),
    Failure(call="IRQFD", errors=(NOMEM,)),
    Failure(call="IOEVENTFD", errors=(NOMEM,), nth=2),
    Failure(call="IRQFD", errors=(NOMEM,), nth=2),
]


def each(failures: list[Failure], where: str = "") -> list[object]:
    return [
        pytest.param(failure, err, id=" ".join(filter(None, (where, failure.call, errno.errorcode[err]))))
        for failure in failures
        for err in failure.errors
    ]


@pytest.mark.parametrize(("failure", "err"), [case for where, row in FATAL.items() for case in each(row, where)])
def test_failure_is_one_line_with_call_errno_and_fix_and_leaves_nothing(
    scene: Scene, capfd: pytest.CaptureFixture[str], failure: Failure, err: int
) -> None:
    if failure.call == "DESTROY_IOREQ_CLIENT":
        scene.tolerated = "is destroyed while its client exists"  # what else
    scene.hsm.fail(failure.call, err, after=failure.nth - 1, times=failure.times)
    assert scene.command(*failure.programs, POWER_OFF) == app.EXIT_FAILURE
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(rf"(^acrn-dm|can't go on|error): {failure.call}\b", line), line
    told, _, fix = line.partition("; ")
    assert f"({errno.errorcode[err]})" in told
    assert len(fix) > 15


@pytest.mark.parametrize(("failure", "err"), each(BEARABLE))
def test_failure_of_what_can_be_done_without_is_borne(
    scene: Scene, capfd: pytest.CaptureFixture[str], failure: Failure, err: int
) -> None:
    scene.hsm.fail(failure.call, err, after=failure.nth - 1, times=failure.times)
    assert scene.command(POWER_OFF, level=DEBUG) == app.EXIT_OFF
    assert f"{failure.call}: {os.strerror(err)} ({errno.errorcode[err]}); " in capfd.readouterr().err


@pytest.mark.parametrize(("call", "msix"), [("INJECT_MSI", True), ("SET_IRQLINE", False)])
def test_interrupt_that_can_not_be_delivered_costs_the_device_a_reset_and_not_the_guest(
    scene: Scene, capfd: pytest.CaptureFixture[str], call: str, msix: bool
) -> None:
    def lose_the_interrupt(guest: Guest) -> None:
        driver = guest.start_disk(msix=msix)
        scene.hsm.fail(call, PERM)
        guest.request(driver)
        guest.until(lambda: bool(driver.status & NEEDS_RESET))
        guest.read_disk()  # after that reset it works
        guest.power_off()

    scene.hsm.fail("IRQFD", NOMEM)
    assert scene.command(lose_the_interrupt) == app.EXIT_OFF
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "needs a reset" in line]
    assert f"{call}: Operation not permitted (EPERM)" in line


def test_error_at_the_end_does_not_hide_the_one_that_caused_it(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    scene.hsm.fail("START_VM", PERM)
    scene.hsm.fail("DESTROY_VM", INVAL)
    assert scene.command(POWER_OFF) == app.EXIT_FAILURE
    logged, told = capfd.readouterr().err.splitlines()
    assert "ERROR: closing: DESTROY_VM: " in logged
    assert told.startswith("acrn-dm: START_VM: ")
