"""Devices of which this process knows no more than what they look like: all else is the process's that has their data.

Other than with devices of a known kind, a pause does not make the process forget the driver, while a reset does, and
what a driver writes into the configuration space is written there, whatever it is.
"""

from collections.abc import Callable
from typing import ClassVar

from acrn_dm.backends.door import Door
from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.backend import VhostUser
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.backends.user.terms import Terms
from acrn_dm.contract.resources import Resources
from acrn_dm.contract.types import DeviceContext
from acrn_dm.virtio import features
from acrn_dm.virtio.device import VirtioDevice


class OpaqueDevice(VirtioDevice):
    """The device as the machine has it: an identity and a layout. Its backend hears of its driver."""

    def __init__(self, context: DeviceContext) -> None:
        super().__init__(context)
        self.on_reset: Callable[[], None] = lambda: None

    @property
    def features(self) -> int:
        """Those without which its kind can't be; all others are the backend's to say."""
        return features.MANDATORY.get(self.device_id, 0)

    def reset(self) -> None:
        """It is the real one that forgets its driver."""
        self.on_reset()


class OpaqueBackend(VhostUser):
    """The backend of *device*; *door* leads to its processes, by default its socket."""

    stop_resets: ClassVar[bool] = False

    def __init__(self, device: OpaqueDevice, door: Door | None = None, terms: Terms | None = None) -> None:
        super().__init__(device, door, terms)
        self._stand_in = device

    def realize(self, resources: Resources) -> None:
        """Get acquainted with the process, and hear of the device what a driver makes of it. Raises HostError,
        ConfigError.
        """
        super().realize(resources)
        self._stand_in.on_reset = self._forget_driver

    def write_config(self, offset: int, data: bytes) -> None:
        """Write it there, and see what became of it: with some devices a write chooses what is read next."""
        if not self._terms.remote_config:
            return
        field = self._terms.writable
        if field is not None and field.kept and field.cut(offset, data):
            self._written[field.offset] = field.cut(offset, data)
        self._say(self._write(offset, data))

    def close(self) -> None:
        """The process is let go."""
        self._stand_in.on_reset = lambda: None
        super().close()

    def _write(self, offset: int, data: bytes) -> Talk[None]:
        yield from user_talk.set_config(self._peer, offset, data)
        yield from self._look()

    def _look(self) -> Talk[None]:
        """The driver knows what it did to the configuration: it is not told of the change."""
        if self.device.config_size and self._terms.remote_config:
            self._config = yield from user_talk.get_config(self.device.config_size)

    def _forget_driver(self) -> None:
        """The driver has reset the device."""
        self._say(self._forgetting())

    def _forgetting(self) -> Talk[None]:
        yield from user_talk.forget_driver(self._peer)
        yield from self._look()

    def _say(self, talk: Talk[None]) -> None:
        """Have *talk*, if there is anybody."""
        with self._conversations.hold():
            self._link.settle()
            if self._link.connected:
                self._converse(talk)
