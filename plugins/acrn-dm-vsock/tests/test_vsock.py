"""The vsock device under a driver, with a played kernel."""

import errno
import os
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import acrn_dm_vsock
import pytest

from acrn_dm import BackendType, Claim, ConfigError, HostError, hookimpl
from acrn_dm.testing import FakeNode, FakeVhost, SimMachine, VirtioDriver, assert_device_conforms

NEEDS_RESET = 64
# What vhost-vsock says on Linux 6.1: NOTIFY_ON_EMPTY, LOG_ALL, ANY_LAYOUT, INDIRECT, EVENT_IDX, VERSION_1, SEQPACKET.
FEATURES = sum(1 << bit for bit in (1, 24, 26, 27, 28, 29, 32))
DEVICE = SimpleNamespace(__name__="device", acrn_dm_device_types=acrn_dm_vsock.acrn_dm_device_types)


class Kernel(FakeVhost):
    """Nodes of this one instead of the real."""

    @hookimpl
    def acrn_dm_backend_types(self) -> Sequence[BackendType]:
        def make(device: acrn_dm_vsock.VsockDevice) -> acrn_dm_vsock.VsockVhost:
            return acrn_dm_vsock.VsockVhost(device, self.open)

        return [BackendType(name="vhost", summary="", kinds={"vhost-vsock"}, create=make)]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(features=FEATURES, resets_owner=False)


@pytest.fixture
def machine(kernel: Kernel) -> Iterator[SimMachine]:
    with SimMachine(plugins=[DEVICE, kernel]) as made:
        kernel.join(made)
        made.add("vhost-vsock", "cid=42", slot=3)
        yield made


@pytest.fixture
def driver(machine: SimMachine, kernel: Kernel) -> VirtioDriver:
    made = machine.driver(3)
    kernel.take_log()
    return made


def ring(index: int) -> list[str]:
    set_up = [f"SET_VRING_NUM {index} 128", f"SET_VRING_BASE {index} 0"]
    return set_up + [f"SET_VRING_{what} {index}" for what in ("ADDR", "CALL", "ERR", "KICK")]


def gone(index: int) -> list[str]:
    return [f"SET_VRING_{what} {index} -1" for what in ("KICK", "CALL", "ERR")]


START = [
    *["ioeventfd + mmio", "irqfd + msi"] * 3,
    *["SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE", *ring(0), *ring(1), "VSOCK_SET_RUNNING 1"],
]
STOP = [
    *["ioeventfd - mmio"] * 3,
    *["VSOCK_SET_RUNNING 0", "GET_VRING_BASE 0", "GET_VRING_BASE 1", *gone(0), *gone(1)],
    *["close", "open /dev/vhost-vsock", "GET_FEATURES", "VSOCK_SET_GUEST_CID 42"],
    *["irqfd - msi"] * 3,
]


def echo(driver: VirtioDriver, queue: int = 1) -> bytes:
    return driver.queue(queue).transfer([b"ab"], [2]).data


def test_address_is_taken_before_a_guest_runs(machine: SimMachine, kernel: Kernel) -> None:
    machine.start()
    assert kernel.log == ["open /dev/vhost-vsock", "GET_FEATURES", "VSOCK_SET_GUEST_CID 42"]


def test_driver_reads_its_address(driver: VirtioDriver) -> None:
    assert driver.read_config(0, 8) == (42).to_bytes(8, "little")


def test_calls_of_a_start(driver: VirtioDriver, kernel: Kernel) -> None:
    driver.start()
    assert kernel.take_log() == START
    assert echo(driver) == b"ba"


def test_driver_that_is_unloaded_and_loaded_again_finds_it_working(driver: VirtioDriver, kernel: Kernel) -> None:
    for _ in range(3):
        driver.start()
        assert kernel.take_log() == START
        assert echo(driver) == b"ba"
        driver.reset()
        assert kernel.take_log() == STOP
        assert [(node.owned, node.rings) for node in kernel.nodes] == [(False, {})]


def test_reset_owner_is_never_tried(driver: VirtioDriver, kernel: Kernel) -> None:
    driver.start()
    driver.reset()
    assert "RESET_OWNER" not in kernel.take_log()


def descriptors() -> list[str]:
    """This process's."""
    return sorted(os.listdir("/proc/self/fd"))


KERNEL_START = [call for call in START if "fd " not in call]
KERNEL_STOP = [call for call in STOP if "fd " not in call and call != "close"]


@pytest.mark.parametrize("step", range(len(KERNEL_START)), ids=KERNEL_START)
def test_start_that_fails_leaves_nothing_and_the_next_one_works(
    machine: SimMachine, driver: VirtioDriver, kernel: Kernel, step: int
) -> None:
    driver.start()  # so that everything that is made once is there
    driver.reset()
    before = descriptors()
    kernel.fail(errno.ENOMEM, call=KERNEL_START[step])
    driver.start()
    assert driver.status & NEEDS_RESET
    assert machine.vm.kicks.bindings == machine.vm.interrupts.bindings == []
    assert [(node.owned, node.rings) for node in kernel.nodes] == [(False, {})]
    assert descriptors() == before
    driver.start()
    assert echo(driver) == b"ba"


@pytest.mark.parametrize("step", range(len(KERNEL_STOP)), ids=KERNEL_STOP)
def test_stop_goes_on_whatever_fails_and_the_next_start_works(
    machine: SimMachine, driver: VirtioDriver, kernel: Kernel, step: int
) -> None:
    driver.start()
    driver.reset()
    before = descriptors()
    driver.start()
    kernel.take_log()
    kernel.fail(errno.EFAULT, call=KERNEL_STOP[step])
    driver.reset()
    log = kernel.take_log()
    given_back = STOP.index("close") + 1
    assert log[:given_back] == STOP[:given_back]
    assert log[-3:] == ["irqfd - msi"] * 3
    assert machine.vm.kicks.bindings == machine.vm.interrupts.bindings == []
    # A node that can't be opened or used again is closed, and opened at the next start.
    there = KERNEL_STOP[step] not in STOP[given_back:]
    assert len(kernel.nodes) == there
    assert descriptors() == before  # the played node has none
    driver.start()
    assert ("open /dev/vhost-vsock" in kernel.take_log()) == (not there)
    assert [node.owned for node in kernel.nodes] == [True]
    assert echo(driver) == b"ba"


def test_offer_is_what_the_kernel_has_without_its_own_bits(driver: VirtioDriver) -> None:
    offered = driver.registers.offered()
    assert offered & acrn_dm_vsock.SEQPACKET
    assert not offered & 1 << 26


def test_vsock_feat_no_implied(driver: VirtioDriver, kernel: Kernel) -> None:
    """vsock.feat.no_implied: offered with the bit for streams; the kernel, which knows neither, is not told."""
    own = acrn_dm_vsock.STREAM | acrn_dm_vsock.NO_IMPLIED_STREAM
    assert driver.registers.offered() & own == own
    assert driver.start() & own == own
    assert kernel.nodes[0].acked & 0xFF == acrn_dm_vsock.SEQPACKET
    assert echo(driver) == b"ba"


@pytest.mark.parametrize("accepted", [0, 1, 2, 4, 6, 7])
def test_every_subset_of_socket_types_is_accepted(driver: VirtioDriver, accepted: int) -> None:
    driver.start(accepted)
    assert driver.features & 7 == accepted
    assert echo(driver) == b"ba"


def test_old_kernel_without_sequenced_packets() -> None:
    kernel = Kernel(features=FEATURES & ~acrn_dm_vsock.SEQPACKET)
    with SimMachine(plugins=[DEVICE, kernel]) as m:
        kernel.join(m)
        m.add("vhost-vsock", "cid=42", slot=3)
        assert not m.driver(3).registers.offered() & acrn_dm_vsock.SEQPACKET


@pytest.mark.parametrize("queue", [0, 1])
def test_driver_that_enables_one_of_the_kernels_queues_has_to_reset(
    driver: VirtioDriver, kernel: Kernel, caplog: pytest.LogCaptureFixture, queue: int
) -> None:
    """The kernel runs both or none (vhost_vsock_start)."""
    driver.start(queues=[queue, 2])
    assert driver.status & NEEDS_RESET
    (line,) = [record for record in caplog.records if record.levelname != "DEBUG"]
    assert f"the driver enabled only {queue}" in line.getMessage()
    assert line.exc_info is None
    driver.start()
    assert echo(driver) == b"ba"
    assert not driver.status & NEEDS_RESET


def test_driver_without_the_event_queue_is_served(driver: VirtioDriver) -> None:
    driver.start(queues=[0, 1])
    assert echo(driver) == b"ba"


class Kernels(Kernel):
    """A new kernel for each machine."""

    def build(self, machine: SimMachine) -> None:
        self.kernel = FakeVhost(features=FEATURES, resets_owner=False)
        self.kernel.join(machine)
        machine.add("vhost-vsock", "cid=42", slot=3)

    def open(self, path: str) -> FakeNode:
        return self.kernel.open(path)


def test_device_conforms() -> None:
    """To everything but sockets, of which this kernel knows nothing."""
    kernels = Kernels(features=FEATURES, resets_owner=False)
    assert_device_conforms(kernels.build, plugins=[DEVICE, kernels])


def test_event_buffers_wait_in_this_process(machine: SimMachine, driver: VirtioDriver) -> None:
    driver.start()
    driver.queue(2).send([], [8])
    driver.queue(2).kick()
    machine.settle()
    assert driver.queue(2).completed() == []
    driver.reset()
    driver.start()


def test_address_that_another_machine_has_is_an_error(kernel: Kernel) -> None:
    with SimMachine(plugins=[DEVICE, kernel]) as m:
        kernel.join(m)
        m.add("vhost-vsock", "cid=42", slot=3)
        m.add("vhost-vsock", "cid=42", slot=4)
        with pytest.raises(HostError, match="EADDRINUSE"):
            m.start()


@pytest.mark.parametrize("text", ["", "cid=2", "cid=4294967295", "cid=x", "cid=3,bogus"])
def test_wrong_option_is_refused(text: str, kernel: Kernel) -> None:
    with SimMachine(plugins=[DEVICE, kernel]) as m:
        kernel.join(m)
        with pytest.raises(ConfigError):
            m.add("vhost-vsock", text, slot=3)


def test_missing_node_is_said_before_the_start() -> None:
    with SimMachine(plugins=[acrn_dm_vsock]) as m:
        lines = m.add("vhost-vsock", "cid=42", slot=3).check()
    assert lines in ([], ["vhost-vsock-3:0: backend vhost: /dev/vhost-vsock does not exist; load vhost_vsock"])


def test_address_of_two_devices_is_claimed_twice(kernel: Kernel) -> None:
    with SimMachine(plugins=[DEVICE, kernel]) as m:
        kernel.join(m)
        first, second = (m.add("vhost-vsock", "cid=42", slot=slot).device for slot in (3, 4))
        assert first.claims() == second.claims() == [Claim(key=("vsock", 42), what="cid 42")]
        assert first.claims()[0].access.excludes(second.claims()[0].access)
