"""A device in a process of its own as the machine has it: what can be one, and its function on the bus."""

import functools

from acrn_dm.backends.helper import PROCESS, Wish
from acrn_dm.backends.helper.backend import HelperBackend
from acrn_dm.backends.helper.device import AwayDevice
from acrn_dm.backends.helper.supervisor import Supervisor
from acrn_dm.backends.wire.order import Order
from acrn_dm.base.errors import ConfigError
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import BackendType, DeviceContext
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import TerminalUser
from acrn_dm.virtio.pci.transport import VirtioPci
from acrn_dm.virtio.placement import USERSPACE

BALLOON, PMEM = 5, 27  # they work on the machine's memory itself


def away_function(
    model: VirtioDevice, spec: DeviceSpec, context: DeviceContext, wish: Wish, plugins: Selection | None
) -> VirtioPci[AwayDevice]:
    """The function of a device like *model*, which another process makes of *spec*, with the installed plugins that
    *plugins* has (None: none). Raises ConfigError.
    """
    problem = _problem(model, context)
    if problem is not None:
        raise ConfigError(problem, option=model.name, value=f"{PROCESS}=on")
    order = Order(spec=spec, context=context, sandbox=wish.sandbox, plugins=plugins, user=wish.user)
    supervisor = Supervisor(context.name, wish, order.encode())
    kind = BackendType(
        name=PROCESS,
        summary="in a process of its own",
        kinds={"*"},
        create=functools.partial(_backend, door=supervisor),
    )
    return VirtioPci(AwayDevice(model, context, wish), context, [kind])


def _backend(device: AwayDevice, *, door: Supervisor) -> HelperBackend:
    return HelperBackend(device, door)


def _problem(model: VirtioDevice, context: DeviceContext) -> str | None:
    """Why *model* can't be in a process of its own; None: it can."""
    if {model.placement.backend, context.backend or USERSPACE} != {USERSPACE}:
        return "its data is moved elsewhere already"
    if isinstance(model, TerminalUser) and model.uses_terminal:
        return "it stands on this process's terminal"
    if model.device_id in (BALLOON, PMEM):
        return "it works on the machine's memory itself"
    if context.switches.get("in_order") and model.in_order is not True:
        return "its requests would have to wait for one another there (in_order=on)"
    return None
