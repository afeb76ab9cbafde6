"""Kernel vhost below the emulated HSM: the module's own eventfds carry the card's kicks and interrupts."""

import json
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.virtio.pci.modern import NOTIFY_MULTIPLIER, NOTIFY_OFFSET
from lab.demo import run, vmm
from lab.paths import ROOT
from tests.lab.hsm.hsm_scene import Hsm, demo_command, demonstrate
from tests.lab.vhost.vhost_scene import hits, set_up_probes

pytestmark = pytest.mark.lab

Row = dict[str, Any]
DEASSIGN = {"IOEVENTFD": 4, "IRQFD": 1}  # linux/acrn.h
MODERN_BAR = 4
DATA_QUEUES = (0, 1)  # of a card with one pair; what follows is its control queue, which the device model serves


def notify_registers(hsm: Hsm, machine: vmm.Machine) -> int:
    """Where the card's modern driver notifies queue 0, by the addresses that the device model gives before the boot."""
    command = [*demo_command(hsm, machine, 1), "--dry-run", "--json"]
    # What it misses on this host is in the outer VM.
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (card,) = (device for device in json.loads(shown.stdout)["devices"] if device["kind"] == "virtio-net")
    (bar,) = (bar["address"] for bar in card["bars"] if bar["index"] == MODERN_BAR)
    return int(bar) + NOTIFY_OFFSET


def bindings(trace: Iterable[Row]) -> list[Row]:
    """The calls that bind eventfds, or take them away."""
    return [row for row in trace if row["call"] in DEASSIGN]


def assigns(row: Row) -> bool:
    return not row["flags"] & DEASSIGN[row["call"]]


def assert_bindings_are_kept(trace: Sequence[Row]) -> None:
    """No eventfd is bound twice, and none is left when the VM is destroyed. As long as one is bound, its kicks come by
    no request and its interrupt leaves by no call."""
    bound: dict[tuple[str, int], Row] = {}
    for row in trace:
        held = bound.values()
        if row["call"] == "DESTROY_VM":
            assert not bound
        elif row["call"] == "REQUEST" and row["write"]:
            assert row["address"] not in [other["addr"] for other in held if other["call"] == "IOEVENTFD"]
        elif row["call"] == "INJECT_MSI":
            assert (row["addr"], row["data"]) not in [(other["addr"], other["data"]) for other in held]
        elif row["call"] in DEASSIGN:
            key = (row["call"], row["fd"])
            assert row["result"] == 0, row
            assert (key in bound) is not assigns(row), row
            bound.pop(key) if key in bound else bound.update({key: row})
    assert not bound


def started(trace: Sequence[Row], notify: int) -> list[Row]:
    """What was bound when the card's driver said DRIVER_OK: from its first kick to the last queue's call."""
    rows = bindings(trace)
    first = next(i for i, row in enumerate(rows) if row["call"] == "IOEVENTFD" and row["addr"] == notify)
    return rows[first : first + 2 * len(DATA_QUEUES)]


@pytest.mark.parametrize("hsm", [{"RIG_REQUESTS": "1"}], indirect=True, ids=["traced"])
def test_everything_that_the_demonstration_shows_works_and_the_data_plane_is_the_kernels(
    hsm: Hsm, lab: OuterVm
) -> None:
    """With one processor; ``test_hsm`` shows the demonstration with two."""
    set_up_probes(lab)
    before = {name: hits(lab, name) for name in ("kick", "call")}
    machine = demonstrate(hsm, 1, card=",vhost")
    trace, notify = hsm.trace(), notify_registers(hsm, machine)
    registers = [notify + NOTIFY_MULTIPLIER * queue for queue in DATA_QUEUES]
    # As the original program: kick, then call, of each queue in turn.
    rows = started(trace, notify)
    assert [row["call"] for row in rows] == ["IOEVENTFD", "IRQFD"] * len(DATA_QUEUES)
    assert all(assigns(row) for row in rows)
    assert [row["addr"] for row in rows if row["call"] == "IOEVENTFD"] == registers
    assert_bindings_are_kept(trace)
    assert [row for row in trace if row["call"] == "REQUEST" and row["write"] and row["address"] in registers] == []
    # A ping is a kick and an interrupt at least.
    for name, count in before.items():
        assert hits(lab, name) - count >= run.PINGS, name
