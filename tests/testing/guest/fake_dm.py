"""A stand-in for acrn-dm: a program that says that its guest is up, and obeys; without a guest.

It keeps its arguments in the file arguments of the folder that it is started for. What ``FAKE`` in its environment says
is done at once: a shell's words.
"""

import os
from collections.abc import Callable
from pathlib import Path

from acrn_dm.testing.guest.host import Host
from acrn_dm.testing.guest.images.initramfs import busybox
from acrn_dm.testing.guest.inner.shell import GuestShell
from acrn_dm.testing.guest.kernels.debian import Kernel

PROGRAM = """
printf '%s\\n' "$@" > "$0/arguments"
eval "$FAKE"
echo END 0 0
n=0
while IFS= read -r line; do
    n=$((n + 1))
    case $line in poweroff*) eval "$AT_END"; exit 0 ;; reboot*) n=0; echo END 0 0; continue ;; esac
    eval "$line" < /dev/null 2>&1
    printf '\\nEND %d %d\\n' $n $?
done
"""
KERNEL = Kernel(version="6.1", tree=Path("/nonexistent"))


def starter(scratch: Path, *arguments: str, timeout: float = 10.0, **environment: str) -> Callable[[], GuestShell]:
    """What boots a guest that is none."""

    def boot() -> GuestShell:
        return GuestShell(
            Host(),
            KERNEL,
            scratch,
            arguments,
            initramfs=scratch / "initramfs",
            program=[busybox(), "sh", "-c", PROGRAM, scratch],
            env=environment,
            port=1,  # where nobody listens
            timeout=timeout,
        )

    return boot


def running(folder: Path) -> list[int]:
    """Processes that were started for *folder*, by their command line."""
    found = []
    for process in Path("/proc").glob("[1-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
