"""acrn-dm with a witness: the same command, and one JSON line a boot about what the process holds.

``python -m tests.lab.machines.observed REPORT acrn-dm-arguments...``. The witness is a plugin like anybody's: it sees
the machine through the observer hooks only.
"""

import functools
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from acrn_dm.cli.app import main
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import make_plugin_manager


class Witness:
    """Writes what there is when the vCPUs start and when they have stopped."""

    __name__ = "witness"

    def __init__(self, report: Path) -> None:
        self._report = report.open("a", buffering=1)  # at once: a machine may give up the right to it

    @hookimpl
    def acrn_dm_machine_started(self, machine: Any) -> None:
        self._write("started", machine)

    @hookimpl
    def acrn_dm_machine_stopped(self, machine: Any, reason: str) -> None:
        self._write(reason, machine)

    def _write(self, event: str, machine: Any) -> None:
        maps = Path("/proc/self/maps").read_text().splitlines()
        row = {
            "event": event,
            "boot": machine.power.reboots,
            "fds": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "mappings": sum("kvm-vcpu" in line or "guest-ram" in line for line in maps),
            "all_mappings": len(maps),
            "config_accesses": machine.devices.bus.config_accesses,
        }
        self._report.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    witness = Witness(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:], make_manager=functools.partial(make_plugin_manager, extra=[witness])))
