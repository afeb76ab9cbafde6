"""The checks of what a machine's process gives up, made before anything is open."""

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.process import users
from acrn_dm.base.sandbox import OFF, STRICT
from acrn_dm.base.sandbox.confine import lacking
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.types import HypervisorType
from acrn_dm.machine.rights import SANDBOX, USER


def check(config: MachineConfig, hypervisor: HypervisorType | None) -> list[str]:
    """What stands against giving them up as *config* says, one line each; opens nothing."""
    lines = []
    if config.user is not None and (why := users.problem(config.user)):
        lines.append(str(ConfigError(why, option=USER, value=config.user.text)))
    if hypervisor is not None and hypervisor.needs is None:
        option = USER if config.sandbox == OFF else SANDBOX
        lines.append(f"{option}: the hypervisor {hypervisor.name} does not say what it opens later")
    if config.sandbox == STRICT:
        lines += [f"{SANDBOX}: {line}" for line in lacking()]
    if config.sandbox != OFF and config.dump_guest_core:
        lines.append(f"{SANDBOX}: no process in a sandbox leaves a core, so --dump-guest-core on means nothing")
    return lines
