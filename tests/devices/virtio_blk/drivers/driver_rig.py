"""Disks on drivers that a test makes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import attrs

from acrn_dm import BlockDriver, BlockDriverType, DriverContext, hookimpl, option
from acrn_dm.devices.virtio_blk import acrn_dm_device_types
from acrn_dm.testing import SimMachine
from tests.devices.virtio_blk.blk_rig import Disk

SECTORS = 64


@attrs.frozen(kw_only=True)
class Options:
    """Those of a RAM disk."""

    sectors: int = option(default=SECTORS, help="How many.")


class Ram(BlockDriver):
    """A disk in memory, which counts its calls."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        self.size = 512 * options.sectors
        self.data = bytearray(self.size)
        self.context = context
        self.calls: list[str] = []

    def read(self, offset: int, buffers: Sequence[memoryview]) -> "Future[None] | None":
        self.calls.append("read")
        for view in buffers:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)
        return None

    def write(self, offset: int, buffers: Sequence[memoryview]) -> "Future[None] | None":
        self.calls.append("write")
        for view in buffers:
            self.data[offset : offset + len(view)] = view
            offset += len(view)
        return None

    def flush(self) -> "Future[None] | None":
        self.calls.append("flush")
        return None


@attrs.frozen
class Plugin:
    """Offers what *create* makes as the block driver ``ram``."""

    create: Callable[..., object] = Ram
    config: type = Options
    name: str = "ram"

    @hookimpl
    def acrn_dm_block_driver_types(self) -> list[BlockDriverType]:
        return [BlockDriverType(name=self.name, summary="", config=self.config, create=self.create)]  # type: ignore[arg-type]


@contextmanager
def driven(
    driver: Callable[..., object] = Ram, text: str = "driver=ram", *, features: int | None = None, legacy: bool = False
) -> Iterator[Disk]:
    """A machine with a disk on *driver* in slot 3, started."""
    with SimMachine(plugins=[Plugin(driver)]) as machine:
        function = machine.add(acrn_dm_device_types()[0], text, slot=3)
        disk = machine.driver_legacy(3) if legacy else machine.driver(3)
        disk.start(features)
        yield Disk(machine, function.device, disk)  # type: ignore[attr-defined]


class LateRam(Ram):
    """Whose reads and writes wait in ``begun`` until somebody ends them; *gate* counts them."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        super().__init__(options, context)
        self.begun: list[tuple[Future[None], Callable[[], object]]] = []
        self.changed = threading.Condition()

    def _later(self, work: Callable[[], object]) -> "Future[None]":
        later: Future[None] = Future()
        with self.changed:
            self.begun.append((later, work))
            self.changed.notify_all()
        return later

    def read(self, offset: int, buffers: Sequence[memoryview]) -> "Future[None] | None":
        return self._later(lambda: Ram.read(self, offset, buffers))

    def write(self, offset: int, buffers: Sequence[memoryview]) -> "Future[None] | None":
        return self._later(lambda: Ram.write(self, offset, buffers))

    def wait_for(self, count: int) -> None:
        """Until so many have begun."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, 30)

    def end(self, index: int = 0) -> None:
        """Do the work of one of them, and say so."""
        later, work = self.begun.pop(index)
        if later.set_running_or_notify_cancel():
            work()
            later.set_result(None)
