"""All checks of one machine: of its parts one by one, then of the parts together."""

import functools
from collections.abc import Callable, Iterable

from acrn_dm.base.errors import ConfigError
from acrn_dm.boot import loader
from acrn_dm.contract.config import MachineConfig
from acrn_dm.machine.boot_source import BootSource
from acrn_dm.machine.check.claims import check_claims
from acrn_dm.machine.check.descriptors import check_descriptors
from acrn_dm.machine.devices import Devices
from acrn_dm.machine.firmware import FirmwareSupport
from acrn_dm.machine.hypervisor import ChosenHypervisor
from acrn_dm.management.service import check as check_sockets
from acrn_dm.memory.allocate import shortage


def check_machine(
    config: MachineConfig,
    devices: Devices,
    source: BootSource,
    firmware: FirmwareSupport,
    hypervisor: ChosenHypervisor,
) -> list[str]:
    """What is missing on this host, one line each; opens and changes nothing."""
    checks: list[Callable[[], list[str]]] = [lambda: [] if hypervisor.problem is None else [hypervisor.problem]]
    checks += [lambda: loader.check(source.plan()), firmware.check, devices.platform.check]
    checks += [functools.partial(devices.check, function) for function in devices.functions]
    checks.append(lambda: _check_together(config, devices, firmware))
    if config.gives_up_rights:
        from acrn_dm.machine.rights import checks as rights  # noqa: PLC0415  # few do

        checks.append(lambda: rights.check(config, hypervisor.type))
    return all_problems(checks)


def _check_together(config: MachineConfig, devices: Devices, firmware: FirmwareSupport) -> list[str]:
    lines = check_claims(config, devices, firmware)
    return lines + check_sockets(config) + check_memory(config) + check_descriptors(config, devices.bus)


def check_memory(config: MachineConfig) -> list[str]:
    """One line where the huge pages that were asked for can't be had."""
    why = shortage(config.memory_bytes, hugepages=config.hugepages)
    return [] if why is None else [f"--hugepages: {config.hugepages!r}: {why}"]


def all_problems(checks: Iterable[Callable[[], list[str]]]) -> list[str]:
    """The lines of all *checks*; one that raises ConfigError has that line."""
    lines: list[str] = []
    for check in checks:
        try:
            lines += check()
        except ConfigError as e:
            lines.append(str(e))
    return lines
