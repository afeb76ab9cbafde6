"""The processes of the outer VM, as its kernel tells of them."""

import json
import sys

import attrs

from acrn_dm.testing.guest.outer.vm import OuterVm

HELPER, BROKER = "acrn_dm.export.helper", "acrn_dm.backends.broker.process"
KINDS = ("net", "ipc", "uts")
LOOK = f"""
import json, os
found = {{}}
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        words = open(f"/proc/{{pid}}/cmdline").read().split("\\0")
        status = [line.partition(":")[::2] for line in open(f"/proc/{{pid}}/status").read().splitlines()]
        found[pid] = [words, dict(status), [os.readlink(f"/proc/{{pid}}/ns/{{kind}}") for kind in {KINDS}]]
    except OSError:
        pass
print(json.dumps(found))
"""


@attrs.frozen
class Seen:
    """One process: its command line, fields of proc(5)'s status, and its namespaces of ``KINDS``."""

    pid: int
    words: list[str]
    status: dict[str, str]
    namespaces: list[str]

    @property
    def confined(self) -> bool:
        """It has a filter of system calls, and neither capabilities nor a way to any."""
        none = "0" * 16
        return [self.status[name].strip() for name in ("Seccomp", "CapEff", "CapPrm", "NoNewPrivs")] == [
            *("2", none, none, "1")
        ]

    @property
    def users(self) -> set[str]:
        """Real, effective, saved, and of file systems."""
        return set(self.status["Uid"].split())


def processes(vm: OuterVm) -> dict[int, Seen]:
    """All of them, by their numbers."""
    done = vm.run([sys.executable, "-I", "-S", "-c", LOOK])
    assert done.rc == 0, done.stderr
    return {int(pid): Seen(int(pid), *told) for pid, told in json.loads(done.stdout).items()}


def of(program: str, found: dict[int, Seen]) -> list[Seen]:
    """Those that execute *program*."""
    return [seen for seen in found.values() if program in seen.words]
