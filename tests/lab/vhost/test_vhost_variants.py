"""Kernel vhost in the lab, driven in other ways: by the interrupt line, with several queue pairs."""

import sys

import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.vhost.vhost_scene import stage

pytestmark = pytest.mark.lab


def test_guest_without_msi_is_interrupted_by_the_line(lab: OuterVm, lab_kernel: Kernel) -> None:
    with stage(lab, lab_kernel, "vhost", append="pci=nomsi") as scene:
        before = scene.sample()
        assert "20 packets received" in scene.ping(20)
        after = scene.sample()
        assert after.set_irq_line - before.set_irq_line >= 20
        assert after.notify == before.notify, "kicks do not depend on the kind of interrupt"
        assert scene.iperf(seconds=3)["end"]["sum_received"]["bytes"] > 1 << 20


def test_two_queue_pairs_carry_traffic_at_once(lab: OuterVm, lab_kernel: Kernel) -> None:
    with stage(lab, lab_kernel, "vhost,mq=2", tap="multi_queue") as scene:
        assert "5 packets received" in scene.ping()
        scene.shell.run("ethtool -L eth0 combined 2")
        scene.sample()
        before = scene.sample()
        report = scene.iperf("-P", "8", "--bidir", seconds=5)
        after = scene.sample()
        assert min(report["end"][way]["bytes"] for way in ("sum_sent", "sum_received_bidir_reverse")) > 1 << 20
        taken = {name: sum(scene.interrupts(name)) for name in ("virtio1-input.0", "virtio1-input.1")}
        print(taken, file=sys.stderr)
        assert min(taken.values()) > 0, "both pairs are used"
        assert (after.notify, after.inject_msi) == (before.notify, before.inject_msi)
        scene.shell.run("ethtool -L eth0 combined 1")
        assert "5 packets received" in scene.ping()
