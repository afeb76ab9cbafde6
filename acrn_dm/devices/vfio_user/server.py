"""The process behind a foreign function: who it is, what it said, and its registers.

Once it is lost it stays so until ``come_back``: registers read as ones then, and take nothing.
"""

import logging
from collections.abc import Callable

from acrn_dm.backends.door import Door, wait_at
from acrn_dm.backends.wire.message import PeerError
from acrn_dm.backends.wire.vfio_user import message as wire
from acrn_dm.backends.wire.vfio_user.device import CONFIG
from acrn_dm.backends.wire.vfio_user.message import Command, Message, Refused
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.vfio_user.capabilities import Capabilities, capabilities_of
from acrn_dm.devices.vfio_user.description import Description, describe, greet, read
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.devices.vfio_user.memory import SharedMemory
from acrn_dm.devices.vfio_user.space import ConfigShape, sizes
from acrn_dm.memory.guest_memory import GuestMemory

log = logging.getLogger(__name__)


class Server:
    """The server behind *door* of the device *name*, whose memory is *memory*; messages about it are served on *loop*
    while *may_master* says so. *lost* is called once when a server that was met is there no more, on any thread.
    """

    description: Description  # of the one that was met
    capabilities: Capabilities
    shape: ConfigShape

    def __init__(
        self,
        door: Door,
        name: str,
        loop: IoLoop,
        memory: GuestMemory,
        *,
        may_master: Callable[[], bool],
        lost: Callable[[HostError], None],
    ) -> None:
        self.door = door
        self._name = name
        self._may_master = may_master
        self._tell = lost
        self._met = False
        self.posts = True  # writes need not be waited for
        self.link = Link(loop, self._serve, self._lost)
        self.memory = SharedMemory(memory, self.link)

    @property
    def there(self) -> bool:
        """Whether it was met and is not lost."""
        return self._met and self.link.connected

    def meet(self, off_wanted: Callable[[], bool]) -> None:
        """Connect and ask what it is, for as long as the user lets us wait. Raises HostError."""
        wait_at(self.door, self._get_acquainted, off_wanted, self._name)
        self._met = True

    def begin(self) -> None:
        """Have it as after power-on, with the guest's memory. Raises HostError."""
        try:
            self.restart()
            self.memory.share()
        except HostError as e:
            self._met = False
            self.link.close()
            raise self.described(e) from e

    def come_back(self) -> None:
        """Have the next server in the place of one that was lost, if it is there by now and the same device; it is as
        after power-on. Raises HostError.
        """
        before = self.description, self.capabilities, self.shape
        try:
            self._get_acquainted()
            if not self.description.is_like(before[0]) or self.capabilities != before[1]:
                self.link.close()
                raise self.described(PeerError("it is another device now"))
        except HostError:
            self.description, self.capabilities, self.shape = before
            raise
        self.memory.forget()
        self._met = True
        self.begin()

    def restart(self) -> None:
        """Reset it, if it can be. Raises HostError."""
        if self.description.resets:
            self.link.ask(Command.DEVICE_RESET)

    def read(self, region: int, offset: int, size: int) -> int:
        """What the guest reads there."""
        if self.there and self._holds(region, offset, size) and self.description.regions[region].readable:
            try:
                return int.from_bytes(read(self.link, region, offset, size), "little")
            except Refused as e:
                log.warning("%s: reading %d bytes at %#x of region %d: %s", self._name, size, offset, region, e)
            except HostError:
                pass  # the connection's end is told by who ends it
        return (1 << 8 * size) - 1

    def write(self, region: int, offset: int, size: int, value: int, *, posted: bool = False) -> None:
        """The guest writes there; *posted*: nobody need wait until it is done."""
        if not (self.there and self._holds(region, offset, size) and self.description.regions[region].writable):
            return
        payload = wire.REGION.pack(offset, region, size) + value.to_bytes(size, "little")
        try:
            if posted and self.posts:
                self.link.post(Command.REGION_WRITE, payload)
            else:
                self.link.ask(Command.REGION_WRITE, payload)
        except Refused as e:
            log.warning("%s: writing %d bytes at %#x of region %d: %s", self._name, size, offset, region, e)
        except HostError:
            return  # as above

    def read_config(self, offset: int, size: int) -> int:
        """Of the configuration space."""
        return self.read(CONFIG, offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """To the configuration space: it is done when this returns."""
        self.write(CONFIG, offset, size, value)

    def described(self, error: HostError) -> HostError:
        """*error*, with the device's name and where its process is."""
        return _of_kind(error, f"{self._name}: {self.door.place}: {self.door.lost(error)}")

    def close(self) -> None:
        """Leave it alone. Idempotent."""
        self._met = False
        self.link.close()
        self.door.close()

    def _get_acquainted(self) -> None:
        try:
            peer = self.door.connect()
        except HostError as e:  # says itself where
            raise _of_kind(e, f"{self._name}: {e}") from e
        self.link.connect(peer)
        try:
            self.memory.page = greet(self.link)
            self.description = describe(self.link)
            self.capabilities = capabilities_of(self.description.config, sizes(self.description))
            self.shape = ConfigShape(self.description, self.capabilities)
        except HostError as e:
            self.link.close()
            raise self.described(e) from e

    def _holds(self, region: int, offset: int, size: int) -> bool:
        return offset + size <= self.description.regions[region].size

    def _serve(self, message: Message) -> bytes:
        if not self._may_master():
            raise Refused(f"{wire.name(message.command)} while the guest has bus mastering off")
        return self.memory.serve(message)

    def _lost(self, error: HostError) -> None:
        if self._met:
            self._met = False
            self._tell(self.described(error))


def _of_kind(error: HostError, text: str) -> HostError:
    return PeerError(text) if isinstance(error, PeerError) else HostError(text)
