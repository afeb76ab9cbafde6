"""``python -m benchmarks.net_daemon --socket-path=PATH``: a card on a wire in memory for a vhost-user client.

``acrn-dm-export vhost-user`` with a kind of card that sends back what it is to send, in C; its loop looks all the time.
"""

import sys
from collections.abc import Iterable
from typing import Any

from acrn_dm import DeviceType, hookimpl
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import DeviceContext
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.export import cli
from benchmarks.bench_net import WireFile

KIND = "virtio-wire"
POLL_US = 10_000


class WireCard(NetDevice):
    """A card that needs nothing of the host's."""

    def __init__(self, config: NetConfig, context: DeviceContext) -> None:
        super().__init__(config, context, lambda _: WireFile())

    def check(self) -> list[str]:
        """Nothing is missing."""
        return []


class Wires:
    """The plugin that offers it."""

    @hookimpl
    def acrn_dm_device_types(self) -> Iterable[DeviceType]:
        """Offer ``virtio-wire``."""
        return [DeviceType(name=KIND, summary="network card on a wire", config=NetConfig, create=WireCard)]


def main() -> int:
    """The program's exit status."""

    def with_wires(**options: Any) -> Any:
        return make_plugin_manager(extra=[Wires()], **options)

    cli.make_plugin_manager = with_wires
    return cli.main(["vhost-user", f"{KIND},tap=none,poll_us={POLL_US}", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
