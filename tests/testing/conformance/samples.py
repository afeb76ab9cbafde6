"""Devices for tests of the suite: of a type that has no rows of its own."""

from collections.abc import Callable

from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import RULES, SLOT, Build, Rule, Subject
from acrn_dm.testing.conformance.run import Judgement, judge
from acrn_dm.virtio.device import VirtioDevice
from tests.virtio import parts

Make = Callable[[DeviceContext], VirtioDevice]


class Echo(parts.Echo):
    """Returns what it reads, backwards; with a legacy interface, as SCSI hosts have."""

    device_id = 8
    offers = 0
    sizes = (16, 16)


class Keeping(parts.Holding):
    """Returns nothing before it is told."""

    device_id = 8
    offers = 0


def build(make: Make) -> Build:
    """What puts a device of class *make* into its slot."""

    def put(machine: SimMachine) -> object:
        return machine.add(make, slot=SLOT)

    return put


def rule_of(row: str) -> Rule:
    """The rule that decides *row*."""
    return next(rule for rule in RULES if row in rule.ids)


def judged(make: Make, row: str) -> Judgement:
    """What the rule of *row* says of a device of class *make*."""
    subject = Subject(build=build(make))
    subject.look()
    return judge(subject, rule_of(row))
