"""A pause as a device sees it: its backend stops between two requests and goes on where it was.

The transport makes one when a queue joins those that run already; here it is as long as a test wants.
"""

from acrn_dm.base.errors import HostError
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.pci.transport import VirtioPci


def pause(function: PciFunction) -> None:
    """Nothing moves in guest memory from now on. What fails costs the driver a reset, as it does when a queue joins."""
    assert isinstance(function, VirtioPci)
    with function.lock:
        try:
            function.data_plane.pause()
        except HostError as e:
            function.core.needs_reset(e)


def resume(function: PciFunction) -> None:
    """Go on. What fails costs the driver a reset, as it does when a queue joins."""
    assert isinstance(function, VirtioPci)
    with function.lock:
        try:
            function.data_plane.resume()
        except Exception as e:
            function.data_plane.stop()
            function.core.needs_reset(e)
