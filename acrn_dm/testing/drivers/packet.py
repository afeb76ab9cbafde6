"""The bench for a packet driver: sends frames and gets those that come, as a card does that has no guest.

::

    with PacketBench("loop", plugins=[my_plugin]) as card:
        card.send(frame)
        assert card.receive() == frame
"""

import select
from collections.abc import Iterable
from types import TracebackType
from typing import Self, cast

from acrn_dm.contract.drivers.packet import PacketDriver
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.drivers.carrier import Carrier
from acrn_dm.devices.virtio_net.request import LONG_HEADER, MAX_FRAME
from acrn_dm.testing.drivers import chosen


class PacketBench:
    """A packet driver, open: *text* is its name and its options, *plugins* are what offers it."""

    def __init__(self, text: str, *, plugins: Iterable[object] = (), pairs: int = 1) -> None:
        """Raises ConfigError, HostError and PluginError, as the start of a machine does."""
        made = chosen("packet", text, plugins)
        self.links: list[bool] = []  # what the driver said of the link, in order
        self._carrier = Carrier("bench", NetConfig(driver=made.name, mq=pairs), made)
        self.driver = cast(PacketDriver, made.driver)
        self.problems = self._carrier.check()
        self._files = self._carrier.open(self.links.append)

    def send(self, frame: bytes, *, pair: int = 0) -> bool:
        """Have the driver carry *frame*; False while it takes no more. Raises OSError once it is done for."""
        return self._files[pair].write([frame])

    def receive(self, *, pair: int = 0, seconds: float = 10.0) -> bytes | None:
        """The next frame that comes; None where none does in *seconds*. Raises OSError once the driver is done for."""
        poller = select.poll()
        poller.register(self._files[pair].fd, select.POLLIN)
        poller.poll(1000 * seconds)
        space = memoryview(bytearray(LONG_HEADER + MAX_FRAME))
        size = self._files[pair].read(space)
        return None if size is None else bytes(space[:size])

    def close(self) -> None:
        """Close it. Idempotent."""
        self._carrier.close()
        files, self._files = self._files, ()
        for file in files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
