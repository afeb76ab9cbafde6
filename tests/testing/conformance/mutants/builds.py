"""How the devices of mutants are made: by the word that a mutant has for it, each a ``Subject`` of the suite."""

from collections.abc import Callable
from typing import Any

import acrn_dm_balloon
import acrn_dm_gpio
import acrn_dm_i2c
import acrn_dm_input
import acrn_dm_rng
import acrn_dm_vsock

from acrn_dm import DeviceContext, parse_options
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import SLOT, Subject
from tests.testing.conformance.mutants.outsides import Card, Disk, Terminals
from tests.testing.conformance.mutants.right import Later, Modern, Right
from tests.testing.conformance.mutants.right_function import Driver, RightFunction, RightMsix

Make = Callable[[DeviceContext], Any]
Way = Callable[[str, type | None], Subject]


def subject(how: str, options: str, device: type | None) -> Subject:
    """The subject that *how* names; *device* is a class in place of the right one."""
    return WAYS[how](options, device)


def _subject(make: Make, outside: Any = None) -> Subject:
    def build(machine: SimMachine) -> object:
        return machine.add(make, slot=SLOT)

    return Subject(build=build, outside=outside)


def _sample(right: type) -> Way:
    return lambda options, device: _subject(device or right)


def _function(right: type) -> Way:
    return lambda options, device: _subject(device or right, Driver())


def _net(pairs: int) -> Way:
    def way(options: str, device: type | None) -> Subject:
        card = Card(device, f"tap=t0,mq={pairs}")
        return Subject(build=card.build, outside=card)

    return way


def _blk(options: str, device: type | None) -> Subject:
    disk = Disk(device, options)
    return Subject(build=disk.build, outside=disk)


def _empty_blk(options: str, device: type | None) -> Subject:
    disk = Disk(device, options, empty=True)
    return Subject(build=disk.build, outside=disk)


def _console(options: str, device: type | None) -> Subject:
    terminals = Terminals(device)
    return Subject(build=terminals.build, outside=terminals)


def _entropy(options: str, device: type | None) -> Subject:
    made = device or acrn_dm_rng.RngDevice
    return _subject(lambda context: made(acrn_dm_rng.RngConfig(), context))


def _package(kind: Any, text: str) -> Way:
    def way(options: str, device: type | None) -> Subject:
        made = device or kind.create

        def make(context: DeviceContext) -> Any:
            return made(parse_options(kind.config, text, kind.name), context)

        return _subject(make)

    return way


def _kind(plugin: Any) -> Any:
    return next(iter(plugin.acrn_dm_device_types()))


WAYS: dict[str, Way] = {
    "sample": _sample(Right),
    "modern": _sample(Modern),
    "later": _sample(Later),
    "pci": _function(RightFunction),
    "pci msix": _function(RightMsix),
    "net": _net(1),
    "net pairs": _net(2),
    "blk": _blk,
    "blk empty": _empty_blk,
    "console": _console,
    "entropy": _entropy,
    "gpio": _package(_kind(acrn_dm_gpio), "count=4,line=led"),
    "i2c": _package(_kind(acrn_dm_i2c), "device=24c02@0x50"),
    "input": _package(_kind(acrn_dm_input), "kind=tablet"),
    "balloon": _package(_kind(acrn_dm_balloon), ""),
    "vsock": _package(_kind(acrn_dm_vsock), "cid=7"),
}
# The right socket device has its queues served by the kernel, which does not play here.
SERVED_ELSEWHERE = {("vsock", "")}
