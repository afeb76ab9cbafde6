"""Namespaces of a process that serves devices (namespaces(7)): a network without links or abstract sockets, System V
IPC and message queues, and a name of the host, all of its own. What is open stays what it was: taps, sockets.

They are one wall more behind the filter, which refuses all that they would keep out: where the kernel has none for this
process, whatever its sandbox's mode, it does without.
"""

import contextlib
import logging
import os

from acrn_dm.base.sandbox import _calls, threads
from acrn_dm.base.sandbox.needs import Needs

log = logging.getLogger(__name__)

USER = 0x10000000  # linux/sched.h, CLONE_NEW*
KINDS = {"net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000}


def prepare() -> None:
    """Have a user namespace, in which a process without capabilities may make the others. Files see the same user.
    While this process has one thread only. Nothing happens where the kernel refuses, nor for a process that has
    capabilities, such as root's: it would lose them for what it opens, and may not need any such namespace.
    """
    if not _has_capabilities() and _may():
        _be_alone()


def _has_capabilities() -> bool:
    with open("/proc/self/status") as file:
        return any(line.startswith("CapEff:") and int(line.split()[1], 16) for line in file)


def _may() -> bool:
    """Whether the kernel lets us, tried by a process that ends: half of it could not be undone."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    status = 1
    try:
        _be_alone()
        _calls.unshare(sum(KINDS.values()))
        status = 0
    finally:
        os._exit(status)


def _be_alone() -> None:
    """Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    _calls.unshare(USER)
    # user_namespaces(7): one's own numbers may be mapped by whoever can change no groups.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def leave_the_hosts(wanted: Needs, name: str) -> None:
    """Have all threads of this process in namespaces of its own, but for the network where *wanted* names ports; the
    log says what it does without, for *name*. Raises OSError.
    """
    kinds = {kind: flag for kind, flag in KINDS.items() if kind != "net" or not wanted.tcp_ports}
    try:
        _calls.unshare(sum(kinds.values()))
    except OSError as e:
        log.info("%s: without namespaces of its own: %s", name, e.strerror)
        return
    with contextlib.ExitStack() as stack:
        fds = []
        for kind in kinds:
            fds.append(os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        _calls.move_this_thread(fds)
        threads.change_others()
