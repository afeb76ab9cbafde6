"""acrn-dm with a gauge: the same command, and one JSON line at each SIGUSR1 about what this process had to do itself.

``python -m tests.lab.vhost.gauge REPORT acrn-dm-arguments...``. A line has the process, the CPU time of each thread in
nanoseconds, how many kicks came as ordinary accesses, how many interrupts were injected by a call, that is, without an
eventfd, and how often an eventfd was bound to an interrupt or freed. In a sandbox its broker is a fork.
"""

import functools
import importlib
import importlib.metadata
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acrn_dm.cli.app import main
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.hypervisors.kvm.vm import KvmVm
from acrn_dm.virtio.core import VirtioCore
from lab.paths import ROOT
from tests.lab.forked_broker import fork_broker

COUNTED = ((VirtioCore, "notify"), (KvmVm, "inject_msi"), (KvmVm, "set_irq_line"), (KvmVm, "irqfd"))
PLUGINS = {"vsock": "acrn_dm_vsock"}  # entry point, module


def count(counts: Counter[str], owner: type, name: str) -> None:
    """Let every call of the method be counted."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def cpu_ns() -> dict[str, int]:
    """CPU time by thread name."""
    times = {}
    for thread in threading.enumerate():
        # Python 3.11 leaves a forked process's first thread the number that it had.
        number = os.getpid() if thread is threading.main_thread() else thread.native_id
        stat = Path(f"/proc/self/task/{number}/schedstat").read_text()
        times[thread.name] = int(stat.split()[0])
    return times


def uninstalled_plugins() -> list[object]:
    """Plugins of this repository that the environment lacks."""
    found = []
    for entry, module in PLUGINS.items():
        if not importlib.metadata.entry_points(group="acrn_dm", name=entry):
            sys.path.append(str(ROOT / "plugins" / module.replace("_", "-") / "src"))
            found.append(importlib.import_module(module))
    return found


def run(report: Path, argv: list[str]) -> int:
    counts: Counter[str] = Counter()
    for owner, name in COUNTED:
        count(counts, owner, name)
    fork_broker()
    file = report.open("a", buffering=1)  # at once: a sandbox takes the way to it away

    def sample(*_: object) -> None:
        file.write(json.dumps({"pid": os.getpid(), "at": time.monotonic(), "threads": cpu_ns(), **counts}) + "\n")

    signal.signal(signal.SIGUSR1, sample)
    with file:
        return main(argv, make_manager=functools.partial(make_plugin_manager, extra=uninstalled_plugins()))


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
