"""The calls of ACRN's kernel module in order, as the original program makes them; and each of them failing."""

import errno
import threading
from collections.abc import Callable

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.base.irq import IoEventFd, IrqFd, MsiMessage, Space
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRange
from tests.hypervisors.acrn.fake_hsm import FakeHsm
from tests.hypervisors.acrn.hsm_rig import FLAT, MIB, Rig, last_access, make_rig, open_vm, rig

CREATE = ["open", "CREATE_VM", "SETUP_ASYNCIO", "SETUP_VM_EVENT_RING", "SET_MEMSEG", "SET_MEMSEG"]
START = ["SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM"]


def write_and_vanish(r: Rig, port: int, size: int, value: int) -> threading.Thread:
    """A vCPU whose access is its last: the machine is taken down, or asleep, before it is answered."""

    thread = last_access(lambda: r.hsm.vm.pio_write(port, size, value))
    r.dispatch.wait_for(lambda: ("out", port, size, value) in r.dispatch.accesses)
    return thread


# Life


def test_start() -> None:
    with rig() as r:
        r.vm.set_irq_line(16, False)
        r.boot()
        assert r.sequence() == [*CREATE, "SET_IRQLINE", *START]


def test_power_off() -> None:
    with rig() as r:
        r.boot()
        r.hsm.vm.pio_write(0x404, 2, 0x3400)
        r.forget()
        r.vm.stop()
        assert r.sequence() == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT"]
        r.vm.close()
        assert r.sequence() == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]


def test_system_reset_withholds_the_answer_and_clears_it() -> None:
    with rig() as r:
        r.boot()
        r.dispatch.hold = True
        vcpu = write_and_vanish(r, 0xCF9, 1, 6)
        r.forget()
        r.vm.pause()
        vcpu.join()
        r.vm.reset()
        r.boot()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM", "SET_VCPU_REGS", "START_VM"]
        assert "NOTIFY_REQUEST_FINISH" not in r.hsm.names()
        r.dispatch.hold = False
        r.hsm.vm.pio_write(0x80, 1, 1)


def test_system_reset_of_an_answered_guest_clears_once() -> None:
    with rig() as r:
        r.boot()
        r.hsm.vm.pio_write(0xCF9, 1, 6)
        r.forget()
        r.vm.reset()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM"]


def test_full_reset_makes_everything_anew() -> None:
    with rig() as r:
        r.vm.set_irq_line(17, False)
        r.boot()
        first = r.hsm.vm
        r.hsm.vm.pio_write(0xCF9, 1, 0xE)
        r.forget()
        r.vm.pause()
        r.vm.reset(full=True)
        r.boot()
        destroy = ["PAUSE_VM", "DESTROY_IOREQ_CLIENT", "DESTROY_VM", "close"]
        assert r.sequence() == [*destroy, *CREATE, "SET_IRQLINE", *START]
        assert r.hsm.vm is not first
        assert [c.argument for c in r.hsm.calls if c.name == "SET_IRQLINE"] == [(17, 0)]  # idle is high
        r.hsm.vm.pio_write(0x80, 1, 1)


def test_suspend_and_wake_up() -> None:
    with rig() as r:
        r.boot()
        r.dispatch.hold = True
        vcpu = write_and_vanish(r, 0x404, 2, 0x2C00)
        r.forget()
        r.vm.pause()
        vcpu.join()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ"]
        r.dispatch.hold = False
        r.vm.reset()
        r.boot()
        assert r.sequence()[2:] == ["RESET_VM", "SET_VCPU_REGS", "START_VM"]


def test_ten_resets_of_both_kinds_leave_nothing() -> None:
    with rig(vcpus=2) as r:
        for turn in range(10):
            r.boot()
            r.hsm.vm.pio_write(0x80, 1, turn, vcpu=turn % 2)
            r.vm.reset(full=turn % 3 == 2)
        assert [a[3] for a in r.dispatch.accesses] == list(range(10))


def test_reset_of_a_machine_that_never_ran_pauses_it_first() -> None:
    with rig() as r:
        r.forget()
        r.vm.reset()
        assert r.sequence() == ["PAUSE_VM", "CLEAR_VM_IOREQ", "RESET_VM"]
        r.boot()


def test_close_without_a_run_pauses_first() -> None:
    with rig() as r:
        r.forget()
        r.vm.close()
        assert r.sequence() == ["PAUSE_VM", "DESTROY_VM", "close"]


def test_resume_is_refused_as_acrn_has_no_such_call() -> None:
    with rig() as r:
        r.boot()
        r.vm.pause()
        with pytest.raises(HostError, match="ACRN can't let a paused VM go on; reset it"):
            r.vm.resume()


# Failures

PERM, INVAL, NOMEM, FAULT = errno.EPERM, errno.EINVAL, errno.ENOMEM, errno.EFAULT
BEFORE_RUN = [
    ("open", (errno.ENOENT, errno.EACCES, errno.ENODEV, errno.ENXIO, PERM, NOMEM, errno.EMFILE)),
    ("CREATE_VM", (INVAL, NOMEM, FAULT, PERM)),
    ("SET_MEMSEG", (INVAL, NOMEM, FAULT, PERM)),
]
AT_RUN = [
    ("SET_VCPU_REGS", (INVAL, NOMEM, FAULT, PERM)),
    ("CREATE_IOREQ_CLIENT", (errno.EEXIST, INVAL)),
    ("START_VM", (PERM, INVAL)),
]
AT_RESET = [("PAUSE_VM", (PERM, INVAL)), ("CLEAR_VM_IOREQ", (INVAL,)), ("RESET_VM", (PERM, INVAL))]
AT_FULL_RESET = [
    ("PAUSE_VM", (PERM, INVAL)),
    ("open", (errno.ENOENT, errno.EACCES, NOMEM)),
    ("CREATE_VM", (INVAL, NOMEM, FAULT, PERM)),
    ("SET_MEMSEG", (INVAL, NOMEM, FAULT, PERM)),
    ("SET_IRQLINE", (PERM, INVAL)),
]


def each(table: list[tuple[str, tuple[int, ...]]]) -> list[tuple[str, int]]:
    return [(call, err) for call, errors in table for err in errors]


def named(case: object) -> str:
    if callable(case):
        return case.__name__
    return errno.errorcode[case] if isinstance(case, int) else str(case)


def assert_helpful(error: HostError, call: str, err: int) -> None:
    """The message names call, errno and the likely fix."""
    text = str(error)
    assert text.startswith(call)
    assert f"({errno.errorcode[err]})" in text
    assert len(text.split("; ", 1)[1]) > 15


@pytest.mark.parametrize(("call", "err"), each(BEFORE_RUN), ids=named)
def test_failure_at_creation_leaves_nothing(call: str, err: int) -> None:
    hsm = FakeHsm()
    hsm.fail(call, err, times=10)
    made: list[Rig] = []
    with pytest.raises(HostError) as caught:
        made.append(make_rig(hsm)) if call != "SET_MEMSEG" else map_one(hsm)
    assert_helpful(caught.value, call, err)
    assert hsm.slept == ([0.5] * 9 if call == "CREATE_VM" else [])
    hsm.close()


def map_one(hsm: FakeHsm) -> None:
    memory = GuestMemory.allocate([MemoryRange(gpa=0, size=2 * MIB)])
    vm = open_vm(hsm)
    try:
        vm.map_memory(memory.regions[0])
    finally:
        vm.close()
        memory.close()


def test_creation_that_fails_nine_times_succeeds() -> None:
    hsm = FakeHsm()
    hsm.fail("CREATE_VM", INVAL, times=9)
    r = make_rig(hsm)
    assert hsm.names()[:10] == ["open", *["CREATE_VM"] * 9]
    assert hsm.slept == [0.5] * 9
    r.vm.close()
    r.memory.close()
    hsm.close()


@pytest.mark.parametrize(("call", "err"), each(AT_RUN), ids=named)
def test_failure_at_start_is_reported_and_leaves_nothing(call: str, err: int) -> None:
    with rig() as r:
        r.hsm.fail(call, err)
        with pytest.raises(HostError) as caught:
            r.boot()
        assert_helpful(caught.value, call, err)


@pytest.mark.parametrize(("call", "err"), each(AT_RESET), ids=named)
def test_failure_at_reset_is_reported_and_only_stop_and_close_work(call: str, err: int) -> None:
    with rig() as r:
        r.boot()
        r.hsm.fail(call, err)
        with pytest.raises(HostError) as caught:
            r.vm.reset()
        assert_helpful(caught.value, call, err)
        with pytest.raises(RuntimeError, match="run: the virtual machine is stopped"):
            r.vm.run(r.dispatch)
        r.vm.stop()


@pytest.mark.parametrize(("call", "err"), each(AT_FULL_RESET), ids=named)
def test_failure_at_full_reset_is_reported_and_leaves_nothing(call: str, err: int) -> None:
    with rig() as r:
        r.vm.set_irq_line(16, False)
        r.boot()
        r.hsm.fail(call, err, times=10 if call == "CREATE_VM" else 1)
        with pytest.raises(HostError) as caught:
            r.vm.reset(full=True)
        assert_helpful(caught.value, call, err)


@pytest.mark.parametrize(("call", "err"), [("PAUSE_VM", PERM), ("DESTROY_IOREQ_CLIENT", INVAL)], ids=named)
def test_failure_at_stop_is_reported_when_the_rest_is_done(call: str, err: int) -> None:
    hsm = FakeHsm()
    r = make_rig(hsm)
    r.boot()
    r.forget()
    hsm.fail(call, err)
    with pytest.raises(HostError) as caught:
        r.vm.stop()
    assert_helpful(caught.value, call, err)
    assert r.sequence() == ["PAUSE_VM", "DESTROY_IOREQ_CLIENT"]
    r.vm.close()
    assert r.sequence()[-2:] == ["DESTROY_VM", "close"]
    r.memory.close()
    assert hsm.devices == hsm.live == []


@pytest.mark.parametrize("err", [PERM, INVAL], ids=named)
def test_failure_to_destroy_is_reported_when_the_device_is_closed(err: int) -> None:
    hsm = FakeHsm()
    r = make_rig(hsm)
    r.boot()
    hsm.fail("DESTROY_VM", err)
    with pytest.raises(HostError) as caught:
        r.vm.close()
    assert_helpful(caught.value, "DESTROY_VM", err)
    r.vm.close()
    r.memory.close()
    hsm.close()  # the kernel has destroyed the paused VM with its last descriptor


@pytest.mark.parametrize("err", [errno.ENODEV, INVAL, errno.EBADF], ids=named)
def test_failing_attach_ends_the_guest_with_its_reason(err: int) -> None:
    with rig() as r:
        r.hsm.fail("ATTACH_IOREQ_CLIENT", err)
        r.boot()
        r.dispatch.wait_for(lambda: bool(r.dispatch.events))
        event, detail = r.dispatch.events[0]
        assert event is VmEvent.INTERNAL_ERROR
        assert detail.startswith("ATTACH_IOREQ_CLIENT: ")
        assert errno.errorcode[err] in detail


def test_interrupted_attach_is_no_failure() -> None:
    with rig() as r:
        r.hsm.fail("ATTACH_IOREQ_CLIENT", errno.EINTR, times=3)
        r.boot()
        r.hsm.vm.pio_write(0x80, 1, 1)
        assert r.dispatch.events == []


@pytest.mark.parametrize("err", [PERM, INVAL, FAULT], ids=named)
def test_failing_notify_ends_the_guest_with_its_reason(err: int) -> None:
    with rig() as r:
        r.boot()
        r.hsm.fail("NOTIFY_REQUEST_FINISH", err)
        vcpu = write_and_vanish(r, 0x80, 1, 1)
        r.dispatch.wait_for(lambda: bool(r.dispatch.events))
        event, detail = r.dispatch.events[0]
        assert event is VmEvent.INTERNAL_ERROR
        assert detail.startswith("NOTIFY_REQUEST_FINISH: ")
        assert errno.errorcode[err] in detail
        r.vm.stop()
        vcpu.join()


Interrupt = Callable[[Rig], None]
MESSAGE = MsiMessage(addr=0xFEE0_0000, data=0x41)


def inject(r: Rig) -> None:
    r.vm.inject_msi(MESSAGE)


def assert_line(r: Rig) -> None:
    r.vm.set_irq_line(4, True)


def bind_kick(r: Rig) -> None:
    r.vm.ioeventfd(IoEventFd(fd=0, space=Space.PIO, addr=1, len=2), True)


def bind_call(r: Rig) -> None:
    r.vm.irqfd(IrqFd(fd=0, target=MESSAGE), True)


@pytest.mark.parametrize(
    ("call", "err", "action"),
    [
        ("INJECT_MSI", PERM, inject),
        ("INJECT_MSI", NOMEM, inject),
        ("INJECT_MSI", FAULT, inject),
        ("SET_IRQLINE", PERM, assert_line),
        ("IOEVENTFD", INVAL, bind_kick),
        ("IOEVENTFD", NOMEM, bind_kick),
        ("IOEVENTFD", errno.EBADF, bind_kick),
        ("IOEVENTFD", errno.EEXIST, bind_kick),
        ("IRQFD", INVAL, bind_call),
        ("IRQFD", NOMEM, bind_call),
        ("IRQFD", errno.EBADF, bind_call),
        ("IRQFD", errno.EBUSY, bind_call),
    ],
    ids=named,
)
def test_failing_interrupt_or_binding_is_reported(call: str, err: int, action: Interrupt) -> None:
    with rig() as r:
        r.boot()
        r.hsm.fail(call, err)
        with pytest.raises(HostError) as caught:
            action(r)
        assert_helpful(caught.value, call, err)
        r.hsm.vm.pio_write(0x80, 1, 1)  # the guest goes on


def test_registers_of_a_running_machine_are_refused() -> None:
    with rig() as r:
        r.boot()
        with pytest.raises(RuntimeError, match="set_boot_registers: the virtual machine is running"):
            r.vm.set_boot_registers(FLAT)
