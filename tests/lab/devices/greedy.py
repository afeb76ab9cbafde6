"""An entropy device that reads its guest what it was told to do on this host, and what came of it."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from acrn_dm import DeviceContext, DeviceType, Needs, Queue, Resources, VirtioDevice, hookimpl
from tests.backends.helper import naughty


@attrs.frozen(kw_only=True)
class Options:
    """*orders* has one a line, as ``naughty`` takes them. It is read for each request."""

    orders: Path


class Greedy(naughty.Naughty):
    """Gives the outcomes, with spaces behind them up to the buffer's end."""

    pci_class = 0x100000

    def __init__(self, config: Options, context: DeviceContext) -> None:
        VirtioDevice.__init__(self, context)
        self.orders = config.orders

    def sandbox_needs(self) -> Needs:
        return Needs(reads=[self.orders])

    def realize(self, resources: Resources) -> None:
        pass

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch(1):
            said = " ".join(self.obey(order) for order in self.orders.read_text().splitlines())
            chain.write(said.ljust(chain.writable_bytes)[: chain.writable_bytes].encode())
            queue.push(chain)


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    return [DeviceType(name="greedy", summary="says what it got", config=Options, create=Greedy)]
