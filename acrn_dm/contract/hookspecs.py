"""The contract with plugins: hooks build the machine, methods run it.

No hook is called on an access, a kick or a descriptor. All hooks run on the main thread except ``acrn_dm_vhm_*``,
which run on the thread of the vCPU whose access changed the binding. Plugins run in no promised order. An
implementation may take fewer arguments than the specification has.
"""

from collections.abc import Iterable

import pluggy

from acrn_dm.base.irq import IoEventFd, IrqFd
from acrn_dm.contract.hypervisor import Hypervisor
from acrn_dm.contract.machine import ObservedMachine, OptionParser
from acrn_dm.contract.types import (
    BackendType,
    BlockDriverType,
    Device,
    DeviceType,
    HypervisorType,
    PacketDriverType,
)

PROJECT = "acrn_dm"  # also the entry-point group
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def acrn_dm_device_types() -> Iterable[DeviceType]:  # type: ignore[empty-body]  # a specification has none
    """Offer kinds of devices.

    When: once, after loading. Returns: an iterable of ``DeviceType``; two plugins with one name are an error that
    names both. If it raises: the plugin is reported by name and version and the start is refused.
    """


@hookspec
def acrn_dm_backend_types() -> Iterable[BackendType]:  # type: ignore[empty-body]  # a specification has none
    """Offer ways to move a device's data.

    When: once, after loading. Returns: an iterable of ``BackendType``. If it raises: as for device types.
    """


@hookspec
def acrn_dm_block_driver_types() -> Iterable[BlockDriverType]:  # type: ignore[empty-body]  # a specification has none
    """Offer what executes a disk's requests: ``-s SLOT,virtio-blk,driver=NAME``.

    When: once, after loading. Returns: an iterable of ``BlockDriverType``. If it raises: as for device types.
    """


@hookspec
def acrn_dm_packet_driver_types() -> Iterable[PacketDriverType]:  # type: ignore[empty-body]  # a specification has none
    """Offer what carries a card's frames: ``-s SLOT,virtio-net,driver=NAME``.

    When: once, after loading. Returns: an iterable of ``PacketDriverType``. If it raises: as for device types.
    """


@hookspec
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:  # type: ignore[empty-body]  # a specification has none
    """Offer hypervisors.

    When: once, after loading. Returns: an iterable of ``HypervisorType``. If it raises: as for device types.
    """


@hookspec(firstresult=True)
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Register (*assign*) or unregister a kick eventfd for a PIO or MMIO range.

    When: at DRIVER_OK and whenever the guest moves the range, resets, or stops. *vm* is the hypervisor's virtual
    machine. Returns: True when done; None passes to the next plugin (a tracer, or a plugin that is not the
    hypervisor's). False vetoes: the kick then comes as an ordinary access. If it raises: the same, and the device says
    so once. A registration that did not end well is unregistered at once, unless the hypervisor's plugin refused it
    with HostError: somebody may have done it before somebody else failed. Who has no such binding raises HostError.
    """


@hookspec(firstresult=True)
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Register (*assign*) or unregister a call eventfd for an MSI message or an INTx line.

    When: at DRIVER_OK and whenever the guest masks or rewrites the vector, resets, or stops. Returns and raises as
    ``acrn_dm_vhm_ioeventfd``; without a registration the device injects the interrupt itself.
    """


@hookspec(historic=True)
def acrn_dm_add_options(parser: OptionParser) -> None:
    """Add long command-line options: *parser* has ``add_option(name, help=…, metavar=…, default=…)``.

    When: before the command line is read. The values, from the command line or from TOML keys of these names, are in
    ``plugin_options``: of ``MachineConfig``, of every ``DeviceContext`` and of the ``HypervisorOptions``.
    """


@hookspec
def acrn_dm_machine_built(machine: ObservedMachine) -> None:
    """Observe: all devices exist and have their addresses; nothing is open. May not raise; if it does, it is logged."""


@hookspec
def acrn_dm_machine_started(machine: ObservedMachine) -> None:
    """Observe: the vCPUs are about to run; also after each guest reboot, and when a guest that was paused goes on."""


@hookspec
def acrn_dm_machine_stopped(machine: ObservedMachine, reason: str) -> None:
    """Observe: the vCPUs have stopped.

    *reason* is ``poweroff``, ``reset``, ``forced off``, ``debug-exit``, ``paused`` (the host failed a device, see
    ``werror`` of virtio-blk) or an error's text.
    """


@hookspec
def acrn_dm_device_failed(device: Device, error: Exception) -> None:
    """Observe: *device* asked its driver for a reset (DEVICE_NEEDS_RESET) because of *error*."""
