"""Things of the host that only one part of a machine can have: terminals, images, sockets."""

import os
from pathlib import Path

from acrn_dm.base.files.claims import Claim, Claimant, conflicts, path_key, socket_claim
from acrn_dm.contract.config import MachineConfig
from acrn_dm.machine.devices import Devices
from acrn_dm.virtio.pci.transport import VirtioPci


def check_claims(config: MachineConfig, devices: Devices, firmware: Claimant) -> list[str]:
    """One line for each thing that two parts want, under whatever name."""
    uarts, functions = devices.platform.uarts, devices.functions
    terminal = [f"-l {port.name.lower()}" for port in uarts if port.uses_terminal]
    terminal += [f.name for f in functions if f.uses_terminal]
    text = "standard input and output can be used by one device only, not by"
    lines = [f"{text} {', '.join(terminal)}"] if len(terminal) > 1 else []
    users: list[tuple[str, object]] = [("--ovmf", firmware)]
    users += [(f"-l {port.name.lower()}", port) for port in uarts]
    users += [(f.name, f.device if isinstance(f, VirtioPci) else f) for f in functions]
    claims = [(name, claim) for name, user in users if isinstance(user, Claimant) for claim in user.claims()]
    if os.isatty(0):
        own = Claim(key=path_key(Path("/proc/self/fd/0")), what="this terminal")
        claims += [(name, own) for name in terminal[:1]]
    if config.command_monitor is not None:
        claims.append(("--cmd_monitor", socket_claim(config.command_monitor)))
    return lines + conflicts(claims)
