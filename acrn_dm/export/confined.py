"""The rights of a process that serves devices: what these need together, and the process besides."""

from collections.abc import Sequence

from acrn_dm.base.errors import HostError
from acrn_dm.base.process.users import User
from acrn_dm.base.sandbox.confine import give_up
from acrn_dm.base.sandbox.needs import ACCEPT, Needs
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import needs_of


def confine_devices(
    mode: str, devices: Sequence[VirtioDevice | PciFunction], *, listens: bool, user: User | None = None
) -> None:
    """Put the sandbox of *mode*, if it is one, on this process, whose *devices* are open, and have it be *user*, if one
    is given. *listens*: clients of theirs are to come yet. Raises HostError.
    """
    own = Needs(groups=[ACCEPT] if listens else [])
    try:
        give_up(mode, needs_of(devices, own), ", ".join(device.name for device in devices), user)
    except HostError as e:
        raise HostError(f"{devices[0].name}: {e}") from e
