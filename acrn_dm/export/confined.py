"""The sandbox of a process that serves devices: what these need together, and the process besides."""

import functools
from collections.abc import Sequence

from acrn_dm.base.errors import HostError
from acrn_dm.base.sandbox import OFF
from acrn_dm.base.sandbox.confine import confine
from acrn_dm.base.sandbox.needs import ACCEPT, Needs
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import Sandboxed


def confine_devices(mode: str, devices: Sequence[VirtioDevice | PciFunction], *, listens: bool) -> None:
    """Put the sandbox of *mode*, if it is one, on this process, whose *devices* are open. *listens*: clients of theirs
    are to come yet. Raises HostError.
    """
    if mode == OFF:
        return
    own = Needs(groups=[ACCEPT] if listens else [])
    needs = functools.reduce(Needs.joined, map(needs_of, devices), own)
    try:
        confine(mode, needs, ", ".join(device.name for device in devices))
    except HostError as e:
        raise HostError(f"{devices[0].name}: {e}") from e


def needs_of(device: VirtioDevice | PciFunction) -> Needs:
    """What *device* says, and nothing if it says nothing."""
    return device.sandbox_needs() if isinstance(device, Sandboxed) else Needs()
