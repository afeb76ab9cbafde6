"""The backend of a device in a process of its own: vhost-user, with a process that is started here."""

from typing import ClassVar

from acrn_dm.backends.door import Door
from acrn_dm.backends.helper.device import AwayDevice
from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.backends.user.features import OPAQUE, WRITABLE, told
from acrn_dm.contract.resources import Resources


class HelperBackend(VhostUser):
    """The backend of *device*; *door* leads to its processes.

    Other than with processes that are not ours, a pause does not make the device forget its driver, and what a driver
    writes into the configuration space is written there, whatever it is.
    """

    stop_resets: ClassVar[bool] = False

    def __init__(self, device: AwayDevice, door: Door) -> None:
        super().__init__(device, door, OPAQUE)
        self._stand_in = device

    def realize(self, resources: Resources) -> None:
        """Start the process, and hear of the stand-in what a driver makes of it. Raises HostError, ConfigError."""
        super().realize(resources)
        self._stand_in.on_reset = self._forget_driver
        self._stand_in.on_negotiated = self._negotiated

    def write_config(self, offset: int, data: bytes) -> None:
        """Write it there, and see what became of it: with some devices a write chooses what is read next."""
        field = WRITABLE.get(self.device.device_id)
        if field is not None and field.kept and field.cut(offset, data):
            self._written[field.offset] = field.cut(offset, data)
        self._say(self._write(offset, data))

    def close(self) -> None:
        """The process ends, which is waited for."""
        self._stand_in.on_reset = lambda: None
        super().close()

    def _write(self, offset: int, data: bytes) -> Talk[None]:
        yield from user_talk.set_config(self._peer, offset, data)
        yield from self._look()

    def _look(self) -> Talk[None]:
        """The driver knows what it did to the configuration: it is not told of the change."""
        if self.device.config_size:
            self._config = yield from user_talk.get_config(self.device.config_size)

    def _forget_driver(self) -> None:
        """The driver has reset the device."""
        self._say(self._forgetting())

    def _forgetting(self) -> Talk[None]:
        yield from user_talk.forget_driver(self._peer)
        yield from self._look()

    def _negotiated(self, features: int) -> None:
        self._say(self._negotiating(told(OPAQUE, features)))

    def _negotiating(self, features: int) -> Talk[None]:
        yield from user_talk.choose(self._peer, features)
        yield from self._look()

    def _say(self, talk: Talk[None]) -> None:
        """Have *talk*, if there is anybody."""
        with self._conversations.hold():
            self._link.settle()
            if self._link.connected:
                self._converse(talk)
