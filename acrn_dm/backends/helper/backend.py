"""The backend of a device in a process of its own: vhost-user, with a process that is started here."""

from acrn_dm.backends.door import Door
from acrn_dm.backends.helper.device import AwayDevice
from acrn_dm.backends.opaque import OpaqueBackend
from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.contract.resources import Resources


class HelperBackend(OpaqueBackend):
    """The backend of *device*; *door* leads to its processes, which are told what a driver has accepted before it
    starts them: the model may show another configuration then.
    """

    def __init__(self, device: AwayDevice, door: Door) -> None:
        super().__init__(device, door)
        self._shown = device

    def realize(self, resources: Resources) -> None:
        """Start the process. Raises HostError, ConfigError."""
        super().realize(resources)
        self._shown.on_negotiated = self._negotiated

    def _negotiated(self, features: int) -> None:
        self._say(self._negotiating(self._terms.told(features)))

    def _negotiating(self, features: int) -> Talk[None]:
        yield from user_talk.choose(self._peer, features)
        yield from self._look()
