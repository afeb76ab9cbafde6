"""Kernel vhost in the lab, under a guest that has interrupt lines only."""

import pytest

from acrn_dm.testing.guest.inner.shell import SERIAL_PORT
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from tests.lab.vhost.vhost_scene import ALONE, CARRIED, stage

pytestmark = pytest.mark.lab


def test_guest_without_msi_is_interrupted_by_the_line(lab: OuterVm, lab_kernel: Kernel) -> None:
    with stage(lab, lab_kernel, {ALONE: "vhost"}, append="pci=nomsi", port=SERIAL_PORT + 1) as scene:
        before = scene.sample()
        assert "20 packets received" in scene.ping(20, ALONE)
        after = scene.sample()
        assert after.set_irq_line - before.set_irq_line >= 20
        assert after.notify == before.notify, "kicks do not depend on the kind of interrupt"
        assert scene.iperf(seconds=3, link=ALONE)["end"]["sum_received"]["bytes"] > CARRIED
