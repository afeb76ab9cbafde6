"""The way into the sandbox of this process, at the moment when its devices are open and nobody is served yet."""

import errno
import logging
import os
import platform
import resource
import sys

from acrn_dm.base.errors import HostError
from acrn_dm.base.process.privileges import no_new_privileges
from acrn_dm.base.sandbox import ON, STRICT, _calls, bpf, landlock, seccomp
from acrn_dm.base.sandbox.needs import Needs

log = logging.getLogger(__name__)

ANSWER_MS = 5000  # for a thread to restrict itself; it does so at its next instruction
KERNEL_THREADS = b"iou-"  # names of io_uring's own, which execute nothing of ours


def lacking() -> list[str]:
    """What this kernel has not that a sandbox is made of, one line each."""
    lines = []
    if platform.machine() != "x86_64":
        lines.append(f"the filter of system calls knows x86-64 only, and not {platform.machine()}")
    elif not _calls.has_seccomp_action(bpf.KILL):
        lines.append("this kernel's filter of system calls ends no process (CONFIG_SECCOMP_FILTER, Linux 4.14)")
    if not landlock.version():
        lines.append("this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, Linux 5.13, and landlock in lsm=)")
    return lines


def confine(mode: str, wanted: Needs, name: str) -> None:
    """Put the sandbox of *mode* on this process, for good; *name* is whose it is. With ``on`` the log says what the
    kernel lacks. Raises HostError: with ``strict`` for what it lacks, and where a step fails.
    """
    lacks = lacking()
    if lacks and mode == STRICT:
        raise HostError(f"sandbox={STRICT}: {lacks[0]}")
    for line in lacks:
        log.warning("%s: sandbox=%s does without: %s", name, ON, line)
    sys.dont_write_bytecode = True  # of modules that are imported from now on
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _calls.set_undumpable()
        no_new_privileges()
        _restrict(wanted)
        if platform.machine() == "x86_64":
            seccomp.put_on(wanted, os.getpid(), strict=mode == STRICT)
    except OSError as e:
        raise HostError.from_os(f"sandbox={mode}" + (f": {e.filename}" if e.filename else ""), e) from e
    HostError.confined_by = f"sandbox={mode}"


def _restrict(wanted: Needs) -> None:
    """Landlock and capabilities: of each thread, as the kernel has them. Raises OSError."""
    abi = landlock.version()
    rules = landlock.ruleset(wanted, abi) if abi else -1
    try:
        done = {os.getpid()}
        _calls.restrict_this_thread(rules)
        while others := _threads() - done:  # one that is not restricted yet may start another
            for tid in others:
                _restrict_other(tid)
            done |= others
    finally:
        if rules >= 0:
            os.close(rules)


def _restrict_other(tid: int) -> None:
    try:
        _calls.restrict_thread(tid, ANSWER_MS)
    except OSError as e:
        if e.errno != errno.ESRCH:
            raise


def _threads() -> set[int]:
    return {int(tid) for tid in os.listdir("/proc/self/task") if not _is_kernels(tid)}


def _is_kernels(tid: str) -> bool:
    try:
        with open(f"/proc/self/task/{tid}/comm", "rb") as file:
            return file.read().startswith(KERNEL_THREADS)
    except OSError:  # it has ended
        return True
