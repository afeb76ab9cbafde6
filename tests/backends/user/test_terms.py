"""A device whose data another process moves: which features that hears of, and what its end costs."""

from pathlib import Path

import attrs
import pytest

from acrn_dm import DeviceContext, DeviceType, VirtioDevice, hookimpl, option
from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user.terms import KNOWN
from acrn_dm.testing import SimMachine
from acrn_dm.testing.driver import PACKED, VERSION_1
from acrn_dm.virtio import defs
from acrn_dm.virtio.features import EVENT_IDX, OFFERED_BY_PCI
from tests.backends.user.peers.peer import BLK_FEATURES, NO_NOTES, Peer


@pytest.mark.parametrize("device_id", [defs.NET, defs.BLOCK, defs.CONSOLE])
def test_what_ends_at_the_registers_is_offered_whatever_the_back_end_has_and_never_told(device_id: int) -> None:
    terms = KNOWN[device_id]
    offered = terms.offer(VERSION_1 | EVENT_IDX | OFFERED_BY_PCI, VERSION_1, queues=2)
    assert offered & (EVENT_IDX | OFFERED_BY_PCI) == OFFERED_BY_PCI
    assert terms.told(offered) & OFFERED_BY_PCI == 0
    assert terms.needed_of_peer(offered) & OFFERED_BY_PCI == 0


@attrs.frozen
class ShelfOptions:
    """Where the process is."""

    socket: Path = option(converter=Path, help="Its socket.")


class Shelf(VirtioDevice):
    """A SCSI host of a plugin's, whose process has its data."""

    device_id = defs.SCSI
    backend_name = "vhost-user"
    queue_sizes = (16, 16, 16)  # control, events, requests
    config_size = 36

    def __init__(self, config: ShelfOptions, context: DeviceContext) -> None:
        super().__init__(context)
        self.backend_path = config.socket


class ShelfPlugin:
    """Offers it."""

    @hookimpl
    def acrn_dm_device_types(self) -> list[DeviceType]:
        return [DeviceType(name="shelf", config=ShelfOptions, create=Shelf, summary="a SCSI host")]


@pytest.mark.parametrize("wanted", [0, PACKED], ids=["split", "packed"])
def test_reset_does_not_wait_for_buffers_of_events_that_do_not_come(socket_path: Path, wanted: int) -> None:
    """Nobody finishes these. A relay waits for all that it has passed on, and gave the process up at each reset."""
    peer = Peer(socket_path, protocol=NO_NOTES, features=BLK_FEATURES | PACKED, config=bytes(36))
    with peer, SimMachine(plugins=[ShelfPlugin(), vhost_user]) as machine:
        machine.add("shelf", f"socket={socket_path}", slot=3)
        driver = machine.driver(3)
        for _ in range(2):
            driver.start(driver.registers.offered() & ~PACKED | wanted)
            driver.queue(1).send([], [16])
            driver.queue(1).kick()
            machine.settle()
            driver.reset()
        assert peer.connections == 1
        assert machine.failures == []
