"""Cards on packet drivers that a test makes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from acrn_dm import DriverContext, PacketDriver, PacketDriverType, PacketPort, hookimpl, option
from acrn_dm.devices.virtio_net import acrn_dm_device_types
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import Completion
from tests.devices.virtio_net.net_rig import PLAIN, RX, TX
from tests.patience import comes_true


@attrs.frozen(kw_only=True)
class Options:
    """Those of a card whose frames go nowhere."""

    depth: int = option(default=1, help="Nothing.")


class Sink(PacketDriver):
    """Keeps what is sent."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        self.sent: list[tuple[bytes, int]] = []
        self.port: PacketPort | None = None
        self.closed = 0

    def open(self, port: PacketPort, pairs: int) -> None:
        self.port = port

    def send(self, frame: bytes, pair: int) -> None:
        self.sent.append((frame, pair))

    def close(self) -> None:
        self.closed += 1


@attrs.frozen
class Plugin:
    """Offers what *create* makes as the packet driver ``sink``."""

    create: Callable[..., object] = Sink

    @hookimpl
    def acrn_dm_packet_driver_types(self) -> list[PacketDriverType]:
        return [PacketDriverType(name="sink", summary="", config=Options, create=self.create)]  # type: ignore[arg-type]


@attrs.define(eq=False)
class Driven:
    """The machine, the card, its driver in the guest, and the packet driver."""

    machine: SimMachine
    device: NetDevice
    guest: VirtioDriver
    driver: Any

    def send(self, frame: bytes, pair: int = 0) -> Completion:
        """Send one frame, which the card takes."""
        return self.guest.queue(2 * pair + TX).transfer([PLAIN + frame])

    def post(self, pair: int = 0) -> None:
        """Post a buffer for a frame."""
        self.guest.queue(2 * pair + RX).send(in_=[2048])
        self.guest.queue(2 * pair + RX).kick()

    def received(self, pair: int = 0) -> bytes:
        """The next frame that comes, in a buffer that was posted."""
        queue = self.guest.queue(2 * pair + RX)
        found: list[Completion] = []

        def came() -> bool:
            self.machine.settle()
            found.extend(queue.completed())
            return bool(found)

        assert comes_true(came)
        return found[0].data[len(PLAIN) : found[0].written]


@contextmanager
def driven(
    driver: Callable[..., object] = Sink, text: str = "driver=sink", features: int | None = None
) -> Iterator[Driven]:
    """A machine with a card on *driver* in slot 4, started."""
    made: list[Any] = []

    def create(options: Options, context: DriverContext) -> object:
        made.append(driver(options, context))
        return made[0]

    with SimMachine(plugins=[Plugin(create)]) as machine:
        function = machine.add(acrn_dm_device_types()[0], text, slot=4)
        guest = machine.driver(4)
        guest.start()
        yield Driven(machine, function.device, guest, made[0])  # type: ignore[attr-defined]
