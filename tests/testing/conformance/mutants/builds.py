"""How the devices of mutants are made: by the word that a mutant has for it, each a ``Subject`` of the suite."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import acrn_dm_rng
import attrs

from acrn_dm import DeviceContext
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance import SLOT, Subject
from tests.devices.virtio_net.net_rig import looped_tap
from tests.testing.conformance.mutants.right import Modern, Right
from tests.testing.conformance.mutants.right_function import RightFunction, RightMsix

IMAGE_BYTES = 1 << 20

Make = Callable[[DeviceContext], Any]


def subject(how: str, options: str, device: type | None, directory: Path) -> Subject:
    """The subject that *how* names; *device* is a class in place of the right one."""
    return WAYS[how](options, device, directory)


def _subject(make: Make, **more: Any) -> Subject:
    def build(machine: SimMachine) -> object:
        return machine.add(make, slot=SLOT)

    return Subject(build=build, **more)


def _sample(right: type) -> Callable[[str, type | None, Path], Subject]:
    return lambda options, device, directory: _subject(device or right)


def _net(pairs: int) -> Callable[[str, type | None, Path], Subject]:
    def way(options: str, device: type | None, directory: Path) -> Subject:
        config = NetConfig.from_string(f"tap=t0,mq={pairs}")
        made = device or NetDevice
        return _subject(lambda context: made(config, context, lambda _: looped_tap(True)))

    return way


def _blk(options: str, device: type | None, directory: Path) -> Subject:
    image = directory / "disk.img"
    image.write_bytes(bytes(range(256)) * (IMAGE_BYTES // 256))
    text = options.format(image=image) if "{image}" in options else ",".join(filter(None, (str(image), options)))
    made = device or BlkDevice

    def make(context: DeviceContext) -> Any:
        return made(BlkConfig.from_string(f"{text},share=on"), attrs.evolve(context, vcpus=2, text=text))

    return _subject(make)


def _console(options: str, device: type | None, directory: Path) -> Subject:
    made, count = device or ConsoleDevice, iter(range(1 << 30))

    def make(context: DeviceContext) -> Any:
        paths = [directory / f"port{next(count)}" for _ in range(2)]
        return made(ConsoleConfig.from_string(f"@file:a={paths[0]},file:b={paths[1]}"), context)

    return _subject(make)


def _entropy(options: str, device: type | None, directory: Path) -> Subject:
    made = device or acrn_dm_rng.RngDevice
    return _subject(lambda context: made(acrn_dm_rng.RngConfig(), context))


WAYS: dict[str, Callable[[str, type | None, Path], Subject]] = {
    "sample": _sample(Right),
    "modern": _sample(Modern),
    "pci": _sample(RightFunction),
    "pci msix": _sample(RightMsix),
    "net": _net(1),
    "net pairs": _net(2),
    "blk": _blk,
    "console": _console,
    "entropy": _entropy,
}

__all__: Sequence[str] = ("WAYS", "subject")
