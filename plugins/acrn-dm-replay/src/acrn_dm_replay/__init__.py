"""replay: a hypervisor without processors that plays a script of register accesses against the devices.

``--script FILE`` is what it plays, ``--transcript FILE`` where it writes what reads returned: a script again.

Its options make every start import this module, so whatever plays a script is imported by who wants one played.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from acrn_dm import (
    ConfigError,
    HostError,
    Hypervisor,
    HypervisorOptions,
    HypervisorType,
    IoEventFd,
    IrqFd,
    OptionParser,
    hookimpl,
)

if TYPE_CHECKING:
    from acrn_dm_replay.script import Step
    from acrn_dm_replay.vm import ReplayVm


def _path(options: Mapping[str, object], name: str) -> Path | None:
    value = options.get(name)
    return Path(value) if isinstance(value, str) else None


def _script(options: HypervisorOptions) -> "tuple[Step, ...]":
    from acrn_dm_replay import script  # noqa: PLC0415

    path = _path(options.plugin_options, "script")
    if path is None:
        raise ConfigError("the hypervisor replay needs one", option="--script")
    return script.load(path)


def check(options: HypervisorOptions) -> list[str]:
    """What is wrong with the script, or with the number of processors."""
    if options.vcpus != 1:
        return [f"--cpus: {options.vcpus}: the hypervisor replay has one processor"]
    try:
        _script(options)
    except ConfigError as e:
        return [str(e)]
    return []


def open_vm(options: HypervisorOptions) -> "ReplayVm":
    """Make the machine that plays the script. Raises ConfigError and HostError."""
    from acrn_dm_replay.vm import ReplayVm  # noqa: PLC0415

    steps = _script(options)
    path = _path(options.plugin_options, "transcript")
    if path is None:
        return ReplayVm(options.name, steps, lambda line: None)
    try:
        file = path.open("w", buffering=1)
    except OSError as e:
        raise HostError.from_os(f"opening {path}", e) from e
    return ReplayVm(options.name, steps, lambda line: print(line, file=file), file.close)


def _of_replay(vm: Hypervisor) -> "TypeGuard[ReplayVm]":
    """Whether *vm* is one of these: none is, as long as nobody has imported their module."""
    module = sys.modules.get(f"{__package__}.vm")
    return module is not None and isinstance(vm, module.ReplayVm)


@hookimpl
def acrn_dm_add_options(parser: OptionParser) -> None:
    """``--script`` and ``--transcript``."""
    parser.add_option("script", metavar="FILE", help="register accesses that --hypervisor replay plays")
    parser.add_option("transcript", metavar="FILE", help="where it writes them, with what reads returned")


@hookimpl
def acrn_dm_hypervisor_types() -> Iterable[HypervisorType]:
    """Offer ``replay``, never chosen automatically."""
    summary = "plays a script of register accesses (--script)"
    return [
        HypervisorType(name="replay", summary=summary, probe=lambda: None, open=open_vm, check=check, rank=-1),
    ]


@hookimpl
def acrn_dm_vhm_ioeventfd(vm: Hypervisor, binding: IoEventFd, assign: bool) -> bool | None:
    """Bind kicks."""
    if not _of_replay(vm):
        return None
    vm.ioeventfd(binding, assign)
    return True


@hookimpl
def acrn_dm_vhm_irqfd(vm: Hypervisor, binding: IrqFd, assign: bool) -> bool | None:
    """Bind calls."""
    if not _of_replay(vm):
        return None
    vm.irqfd(binding, assign)
    return True
