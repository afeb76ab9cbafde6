"""The giving up of a machine's rights, and the broker that keeps some."""

import os
from collections.abc import Iterator, Sequence

from acrn_dm.backends.broker.client import Broker, employ
from acrn_dm.backends.door import Beyond, ListeningDoor, SocketDoor
from acrn_dm.backends.helper.supervisor import Supervisor
from acrn_dm.backends.wire.channel import VHOST_USER
from acrn_dm.base.errors import HostError
from acrn_dm.base.sandbox import OFF
from acrn_dm.base.sandbox.confine import give_up
from acrn_dm.base.sandbox.needs import ACCEPT, CHILDREN, TERMINAL, Needs
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.types import HypervisorType
from acrn_dm.machine.rights import SANDBOX, USER
from acrn_dm.memory.guest_memory import GuestMemory
from acrn_dm.pci.function import PciFunction
from acrn_dm.virtio.optional import needs_of
from acrn_dm.virtio.pci.transport import VirtioPci

OWN = (ACCEPT, CHILDREN, TERMINAL)  # managers, serial ports; the broker; the terminal that the process stands on


def keep(config: MachineConfig, functions: Sequence[PciFunction]) -> Broker | None:
    """The broker, if *functions*, or memory as *config* says, may have work for one. Raises HostError."""
    sockets: dict[str, str] = {}
    devices: dict[str, bytes] = {}
    watched = 0  # foreign back-ends, each of which a thread may have to look at
    for door in (part.door for part in _parts(functions) if isinstance(part, Beyond)):
        if isinstance(door, SocketDoor | ListeningDoor):
            watched += door.protocol == VHOST_USER
        if isinstance(door, SocketDoor):
            sockets[os.fspath(door.path)] = door.protocol
        elif isinstance(door, Supervisor):
            devices[door.name] = door.order
    wanted = sockets or devices or watched or config.hugepages == "on"
    return employ(sockets, devices, watched) if wanted else None


def entrust(broker: Broker | None, memory: GuestMemory) -> None:
    """Have *broker*, if there is one, give back in the end what *memory* has taken from the host. It hears of nothing
    by this, too, so that it hears of nothing else later. Raises HostError.
    """
    if broker is not None:
        broker.give_back_pools(memory.hand_over_pools())


def release(config: MachineConfig, functions: Sequence[PciFunction], hypervisor: HypervisorType | None) -> None:
    """Give up what *config* says, for good: all is open. Raises HostError."""
    own = Needs(groups=OWN)
    if hypervisor is not None and hypervisor.needs is not None:
        own = own.joined(hypervisor.needs)
    try:
        give_up(config.sandbox, needs_of(_parts(functions), own), config.name, config.user, alone=False)
    except HostError as e:
        raise HostError(f"{USER if config.sandbox == OFF else SANDBOX}: {e}") from e


def _parts(functions: Sequence[PciFunction]) -> Iterator[object]:
    """Devices and their backends."""
    for function in functions:
        if isinstance(function, VirtioPci):
            yield from (function.device, function.data_plane.backend)
        else:
            yield function
