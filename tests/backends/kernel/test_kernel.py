"""Kernel vhost under a driver: features, who interrupts, errors, stops in between, fallback."""

import errno
import logging
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from acrn_dm.backends.kernel import _vhost
from acrn_dm.backends.kernel.backend import KernelVhost
from acrn_dm.base.errors import ConfigError, GuestError, HostError, PluginError
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.types import Provenance
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.request import (
    GUEST_CSUM,
    GUEST_TSO4,
    MRG_RXBUF,
    OFFLOADS,
)
from acrn_dm.testing.driver import NEEDS_RESET
from acrn_dm.testing.fake_vhost import FEATURES
from acrn_dm.virtio import features
from tests.backends.kernel.kernel_rig import NetKernel, VhostCard, vhost_card
from tests.virtio.pause import pause, resume

RESERVED = _vhost.LOG_ALL | _vhost.NET_HEADER


# Features


def test_offload_mergeable_and_ring_features_are_offered() -> None:
    with vhost_card() as card:
        wanted = OFFLOADS | MRG_RXBUF | features.EVENT_IDX | features.INDIRECT_DESC | features.VERSION_1
        assert card.driver.registers.offered() & wanted == wanted


@pytest.mark.parametrize("bit", [features.EVENT_IDX, features.INDIRECT_DESC, MRG_RXBUF])
def test_what_the_kernel_does_not_know_is_not_offered(bit: int) -> None:
    with vhost_card(kernel=NetKernel(features=FEATURES & ~bit)) as card:
        assert not card.driver.registers.offered() & bit
        card.driver.start()
        assert card.echo() == b"ba"


def test_row_30_row_34_rings_that_only_the_kernel_knows_are_not_offered() -> None:
    """A kernel that had packed rings: nothing else here knows their indices, a pause for one."""
    with vhost_card(kernel=NetKernel(features=FEATURES | 1 << 34)) as card:
        assert not card.driver.registers.offered() & 1 << 34
        card.driver.start()
        assert not card.kernel.nodes[0].acked & 1 << 34
        assert card.echo() == b"ba"


@pytest.mark.parametrize("kernel_has", [features.IN_ORDER, 0])
def test_row_35_in_order_is_the_kernel_s_promise_and_asked_of_it(kernel_has: int) -> None:
    with vhost_card(kernel=NetKernel(features=FEATURES | kernel_has)) as card:
        assert card.driver.start() & features.IN_ORDER == kernel_has
        assert card.kernel.nodes[0].acked & features.IN_ORDER == kernel_has
        assert card.echo() == b"ba"


def test_row_96_log_all_is_neither_offered_nor_asked_for() -> None:
    """CVE-2019-14835: the log of dirty pages overflowed in Linux. Without LOG_ALL there is none."""
    with vhost_card() as card:
        assert not card.driver.registers.offered() & RESERVED
        card.driver.start()
        assert not card.kernel.nodes[0].acked & RESERVED
        backend = card.machine.bus.functions[0].data_plane.backend  # type: ignore[attr-defined]
        assert not backend.offer(-1 & (1 << 64) - 1) & _vhost.LOG_ALL


def test_kernel_gets_only_what_is_its_to_know() -> None:
    with vhost_card(kernel=NetKernel(features=FEATURES | OFFLOADS)) as card:
        card.driver.start()
        known = features.EVENT_IDX | features.INDIRECT_DESC | features.VERSION_1 | MRG_RXBUF
        assert card.kernel.nodes[0].acked == known


def test_driver_that_declines_is_not_served_with_the_feature() -> None:
    with vhost_card() as card:
        card.driver.start(features.EVENT_IDX)
        assert card.kernel.nodes[0].acked == features.EVENT_IDX | features.VERSION_1
        assert card.taps[0].settings[-1] == (12, 0)


def test_offloads_go_to_the_tap() -> None:
    with vhost_card() as card:
        card.driver.start(GUEST_CSUM | GUEST_TSO4)
        assert card.taps[0].settings == [(12, GUEST_CSUM | GUEST_TSO4)]


def test_kernel_without_virtio_1_is_refused() -> None:
    with pytest.raises(HostError, match="does not know virtio"), vhost_card(kernel=NetKernel(features=1 << 29)):
        pass


# Interrupts by whichever way the driver uses


def test_driver_without_msix_is_interrupted_by_the_line() -> None:
    with vhost_card() as card:
        driver = card.machine.driver(3, msix=False)
        driver.start()
        assert driver.queue(1).transfer([b"ab"], [2]).data == b"ba"
        assert driver.line
        assert driver.registers.read_isr() == 1
        assert not driver.line


def test_driver_with_msi_is_interrupted_by_its_message() -> None:
    with vhost_card(virtio_msi=True) as card:
        card.driver.function.enable_msi()
        card.driver.start()
        assert card.echo() == b"ba"
        assert sum(card.machine.interrupts.values()) == 1


# Errors


class FailingTracer:
    """Wraps both hooks; once somebody bound or unbound, it fails."""

    __name__ = "tracer"

    @hookimpl(wrapper=True)
    def acrn_dm_vhm_ioeventfd(self) -> Generator[None, bool, bool]:
        yield
        raise BrokenPipeError("nobody reads what is traced")

    @hookimpl(wrapper=True)
    def acrn_dm_vhm_irqfd(self) -> Generator[None, bool, bool]:
        yield
        raise PluginError("broke its contract", provenance="plugin tracer")


def test_tracer_that_fails_after_each_binding_costs_speed_only() -> None:
    """Not the interrupt's place: a registration that nobody knows of would keep the old message."""
    with vhost_card() as card:
        card.machine.plugins.register(FailingTracer(), Provenance(plugin="tracer"))
        card.driver.start()
        bindings: list[object] = [*card.machine.vm.kicks.bindings, *card.machine.vm.interrupts.bindings]
        assert bindings == []
        assert card.echo() == b"ba"
        card.driver.registers.map_vector(1, 1)
        assert card.echo() == b"ba"
        assert (card.driver.interrupts(2), card.driver.interrupts(1)) == (1, 1)
        card.driver.reset()
        assert card.nothing_is_left
        assert card.machine.failures == []


def test_tracer_that_fails_from_some_time_on_does_not_keep_the_kernel_running() -> None:
    with vhost_card() as card:
        card.driver.start()
        card.machine.plugins.register(FailingTracer(), Provenance(plugin="tracer"))
        card.driver.reset()
        assert card.nothing_is_left
        assert not card.kernel.nodes[0].owned


def test_ring_error_of_the_kernel_asks_for_a_reset_and_the_reset_heals() -> None:
    with vhost_card() as card:
        card.driver.start()
        card.kernel.nodes[0].break_ring(1)
        card.machine.settle()
        assert card.driver.status & NEEDS_RESET
        error = card.machine.failures[-1][1]
        assert isinstance(error, GuestError)
        assert "queue 1" in str(error)
        card.driver.start()
        assert card.echo() == b"ba"


def test_malformed_ring_is_told_by_the_kernel_and_the_reset_heals() -> None:
    with vhost_card() as card:
        card.driver.start()
        queue = card.driver.queue(1)
        queue.ring.write_desc(0, 0x10_0000, 16, 1, 0)  # its own successor
        queue.ring.make_available(0)
        queue.ring.publish()
        queue.kick()
        card.machine.settle()
        assert "queue 1: the kernel reports a malformed ring" in str(card.machine.failures[-1][1])
        card.driver.start()
        assert card.echo() == b"ba"


@pytest.mark.parametrize("where", [0xFEE0_0000, (16 << 20) - 16, 0x10_0001])
def test_ring_outside_ram_never_reaches_the_kernel(where: int) -> None:
    with vhost_card() as card:
        card.driver.negotiate()
        card.driver.setup_queue(0)
        card.driver.registers.queue_size(1)
        for name in ("queue_desc", "queue_driver", "queue_device"):
            card.driver.registers.write(name, where)
        card.driver.registers.write("queue_enable", 1)
        card.kernel.take_log()
        card.driver.driver_ok()
        assert card.driver.status & NEEDS_RESET
        assert isinstance(card.machine.failures[-1][1], GuestError)
        assert "SET_OWNER" not in card.kernel.take_log()


def test_kick_that_came_before_driver_ok_is_not_lost() -> None:
    with vhost_card() as card:
        card.driver.negotiate()
        queue = card.driver.setup_queue(1)
        queue.send([b"ab"], [2])
        card.driver.driver_ok()
        card.machine.settle()
        assert [done.data for done in queue.completed()] == [b"ba"]


# Stopped in between: the position in the ring is kept


def function(card: VhostCard) -> object:
    return card.machine.bus.functions[0]


def test_pause_and_resume_go_on_at_the_same_place() -> None:
    with vhost_card() as card:
        card.driver.start()
        for _ in range(5):
            card.echo()
        card.kernel.take_log()
        pause(function(card))
        assert not card.kernel.nodes[0].owned
        assert len(card.machine.vm.kicks.bindings) == 3, "kicks wait in their eventfds"
        token = card.driver.queue(1).send([b"ab"], [2])
        card.driver.queue(1).kick()
        card.machine.settle()
        assert card.driver.queue(1).completed() == []
        resume(function(card))
        card.machine.settle()
        assert [done.token for done in card.driver.queue(1).completed()] == [token]
        assert "SET_VRING_BASE 1 5" in card.kernel.take_log()
        assert card.driver.queue_interrupts(1) == 6


def test_resume_that_fails_asks_for_a_reset() -> None:
    with vhost_card() as card:
        card.driver.start()
        pause(function(card))
        card.kernel.fail(errno.ENOMEM, call="SET_OWNER")
        resume(function(card))
        assert card.driver.status & NEEDS_RESET
        assert card.nothing_is_left
        card.driver.start()
        assert card.echo() == b"ba"


def test_reset_while_paused_forgets_the_position() -> None:
    with vhost_card() as card:
        card.driver.start()
        card.echo()
        pause(function(card))
        card.driver.reset()
        resume(function(card))
        assert card.nothing_is_left
        card.kernel.take_log()
        card.driver.start()
        assert "SET_VRING_BASE 1 0" in card.kernel.take_log()


# Which backend


def test_missing_node_is_an_error_for_vhost() -> None:
    kernel = NetKernel()
    kernel.fail(errno.ENOENT, call="open")
    with pytest.raises(HostError, match="open /dev/vhost-net"), vhost_card(kernel=kernel):
        pass


def test_missing_node_is_a_fallback_for_auto_and_said(caplog: pytest.LogCaptureFixture) -> None:
    kernel = NetKernel()
    kernel.fail(errno.ENOENT, call="open")
    with caplog.at_level(logging.WARNING), vhost_card("tap=t0,vhost=auto", kernel=kernel) as card:
        card.driver.start()
        assert card.device.pairs[0].tx is not None
        assert card.kernel.nodes == []
    assert [r.message for r in caplog.records if "falling back to the vbs-u backend" in r.message]


@pytest.mark.parametrize(("mode", "lines"), [("on", ["virtio-net-3:0: backend vhost: no node"]), ("auto", [])])
def test_missing_node_is_said_before_the_start_unless_there_is_a_fallback(mode: str, lines: list[str]) -> None:
    kernel = NetKernel()
    kernel.reason = "no node"
    with vhost_card(f"tap=lo,vhost={mode}", kernel=kernel) as card:
        found = card.machine.bus.functions[0].check()
    assert [line for line in found if "backend" in line] == lines


def test_auto_takes_the_kernel_where_it_can(caplog: pytest.LogCaptureFixture) -> None:
    with vhost_card("tap=t0,vhost=auto") as card:
        card.driver.start()
        assert card.kernel.nodes[0].owned
    assert "falling back" not in caplog.text


def test_second_node_that_can_not_be_opened_closes_the_first() -> None:
    kernel = NetKernel()
    kernel.fail(errno.EMFILE, call="open", after=1)
    with vhost_card("tap=t0,vhost=auto,mq=2", kernel=kernel):
        assert kernel.nodes == []


@pytest.mark.parametrize(
    "text",
    ["tap=t0,vhost=maybe", "vhost-user=/s,vhost", "tap=t0,vhost-user=/s", "tap=t0,mq=0", "tap=t0,mq=129", "vhost"],
)
def test_contradictions_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        NetConfig.from_string(text)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("", "off"), (",vhost", "on"), (",vhost=on", "on"), (",vhost=off", "off"), (",vhost=auto", "auto")],
)
def test_words_for_vhost_are_those_of_other_switches(text: str, mode: str) -> None:
    assert NetConfig.from_string(f"tap=t0{text}").vhost == mode


# The real calls, as far as any machine has them


def test_problem_names_the_module_to_load(tmp_path: Path) -> None:
    class Elsewhere(KernelVhost):
        path = str(tmp_path / "vhost-odd")

    assert Elsewhere.problem() == f"{Elsewhere.path} does not exist; load vhost_odd"
    (tmp_path / "vhost-odd").touch()
    assert Elsewhere.problem() is None


def test_file_that_is_no_vhost_node_fails_with_the_calls_name(tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.touch()
    node = _vhost.NodeFile(str(path))
    with pytest.raises(HostError, match=r"VHOST_GET_FEATURES: .*ENOTTY"):
        node.get_features()
    node.close()
    node.close()
    with pytest.raises(HostError, match=r"VHOST_SET_OWNER: .*EBADF"):
        node.set_owner()


def test_missing_node_says_what_to_load() -> None:
    with pytest.raises(HostError, match=r"open /dev/vhost-nosuch: .*ENOENT\); load vhost"):
        _vhost.NodeFile("/dev/vhost-nosuch")


def test_nodes_descriptor_is_closed_with_the_object(tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.touch()
    fd = _vhost.NodeFile(str(path)).fd
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
