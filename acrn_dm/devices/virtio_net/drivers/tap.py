"""The built-in packet driver: a tap or macvtap. ``tap=NAME`` alone is ``driver=tap,tap=NAME``."""

from collections.abc import Callable, Sequence

import attrs

from acrn_dm.base.files.claims import Claim
from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox.needs import TAP, Needs
from acrn_dm.contract.drivers.packet import PacketDriver, PacketFile
from acrn_dm.contract.options import option
from acrn_dm.contract.types import DriverContext, PacketDriverType
from acrn_dm.devices.virtio_net import backend
from acrn_dm.devices.virtio_net.config import NetConfig, interface_name
from acrn_dm.devices.virtio_net.request import OFFLOADS


@frozen(kw_only=True)
class TapOptions:
    """The name of a tap."""

    tap: str = option(validator=interface_name, metavar="NAME", help="Tap or macvtap interface; it must exist.")


class TapDriver(PacketDriver):
    """A tap, or a macvtap: descriptors of the kernel's, one for each queue pair."""

    offloads = OFFLOADS

    def __init__(
        self,
        options: TapOptions,
        context: DriverContext | None = None,
        *,
        pairs: int = 1,
        open_tap: Callable[[str], PacketFile] = backend.open_tap,
    ) -> None:
        self.name = options.tap
        self._pairs = pairs
        self._open = open_tap

    def card_options(self, config: NetConfig) -> NetConfig:
        """*config* of a card with this driver, as it is for one on the tap."""
        return attrs.evolve(config, driver=None, tap=self.name)

    def check(self) -> list[str]:
        """Whether the interface is there, and nobody else's."""
        why = backend.problem(self.name, self._pairs)
        user = backend.user(self.name) if why is None else None
        why = f"tap {self.name} is in use by {user}" if user is not None else why
        return [] if why is None else [why]

    def claims(self) -> Sequence[Claim]:
        """The interface."""
        return [Claim(key=("interface", self.name), what=f"tap {self.name}")]

    def sandbox_needs(self) -> Needs:
        """Offloads, headers and queues are set at each start."""
        return Needs(groups=[TAP])

    def files(self, pairs: int) -> Sequence[PacketFile]:
        """See PacketDriver. Raises ConfigError or HostError; there is no device without a tap."""
        opened: list[PacketFile] = []
        try:
            for _ in range(pairs):
                opened.append(self._open(self.name))
        except BaseException:
            for file in opened:
                file.close()
            raise
        return opened


def driver_types() -> tuple[PacketDriverType, ...]:
    """The tap."""
    summary = "tap or macvtap of the host's"
    return (PacketDriverType(name="tap", summary=summary, config=TapOptions, create=TapDriver),)
