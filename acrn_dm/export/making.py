"""The device that is served: of the text that ``-s`` takes, by the same plugins and under the same guard."""

from typing import TypeGuard

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import DeviceSpec
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Bdf, Device, DeviceContext
from acrn_dm.machine.resolve import ResolvedDevice, resolve_one, wanted
from acrn_dm.virtio.choice import role_problem
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import Threads
from acrn_dm.virtio.placement import USERSPACE

LISTED_BY = "--help"
QUEUES = 256  # what devices take for the guest's CPUs, of which nobody tells: they have the queues they are asked for
BALLOON, PMEM = 5, 27
NOT_SERVED = {
    BALLOON: "the memory is the front-end's, which has a balloon of its own to get it back",
    PMEM: "a served device has no way to add memory to the client's guest",
}


@frozen(kw_only=True, eq=False)
class Made:
    """A device, and whom its failures are blamed on."""

    device: VirtioDevice
    blamed: str


def make_device(text: str, plugins: PluginManager, *, program: str, slot: int = 0) -> Made:
    """The device of *text* (``virtio-blk,./disk.img``), as ``-s SLOT,TEXT`` makes it; opens nothing.

    *program* and *slot* are a part of its name, and of what is derived from that. Raises ConfigError, PluginError.
    """
    kind, _, rest = text.partition(",")
    spec = DeviceSpec(bdf=Bdf(slot=slot), kind=kind, text=rest, origin=text)
    return make_resolved(spec, DeviceContext(bdf=spec.bdf, kind=kind, machine=program, vcpus=QUEUES), plugins)


def make_resolved(spec: DeviceSpec, place: DeviceContext, plugins: PluginManager) -> Made:
    """The device of *spec* at *place*, which is completed by what the options say and by who offers it; opens nothing.

    Raises ConfigError, PluginError.
    """
    resolved, blamed = _resolved(spec, place, plugins)
    with blame(blamed):
        device = resolved.create()
        if not _is_virtio(device):
            raise ConfigError("no virtio device, so vhost-user has no way to serve it", option=spec.kind)
        _check(device, resolved)
        problems = device.check()
    if problems:
        raise ConfigError(problems[0])
    return Made(device=device, blamed=blamed)


def _resolved(spec: DeviceSpec, place: DeviceContext, plugins: PluginManager) -> tuple[ResolvedDevice, str]:
    kind = wanted(spec, plugins, LISTED_BY)
    owner = plugins.provider(kind)
    context = attrs.evolve(place, provider="" if owner is None or owner.built_in else str(owner))
    blamed = f"{owner}: {spec.kind}"
    with blame(blamed):  # a plugin's grammar may raise anything
        return resolve_one(spec, kind, context, plugins), blamed


def _is_virtio(device: Device) -> TypeGuard[VirtioDevice]:
    return isinstance(device, VirtioDevice)


def _check(device: VirtioDevice, resolved: ResolvedDevice) -> None:
    """Raises ConfigError for what can't be served."""
    context, where = resolved.context, resolved.spec.kind
    if {device.placement.backend, context.backend or USERSPACE} != {USERSPACE}:
        raise ConfigError("a served device can't be served by others", option=where, value=resolved.spec.text)
    if resolved.wish is not None:
        raise ConfigError("it has this process of its own", option=where, value="process=on")
    problem = role_problem(device.placement, context)
    if problem is not None:
        raise ConfigError(problem, option=where)
    if context.iothread.count > 1 and not isinstance(device, Threads):
        raise ConfigError("its queues are served by one thread", option=f"{where} iothread")
    if device.device_id in NOT_SERVED:
        raise ConfigError(NOT_SERVED[device.device_id], option=where)
