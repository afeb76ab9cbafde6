"""The way into the sandbox of this process, at the moment when its devices are open and nobody is served yet."""

import logging
import os
import platform
import resource
import sys

from acrn_dm.base.errors import HostError
from acrn_dm.base.process import users
from acrn_dm.base.process.privileges import no_new_privileges
from acrn_dm.base.process.users import User
from acrn_dm.base.sandbox import OFF, ON, STRICT, _calls, bpf, landlock, namespaces, seccomp, threads
from acrn_dm.base.sandbox.needs import Needs

log = logging.getLogger(__name__)


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


def confine(mode: str, wanted: Needs, name: str, user: User | None = None, *, alone: bool = True) -> None:
    """Put the sandbox of *mode* on this process, for good, and be *user* in it if one is given; *name* is whose it is.
    *alone*: in namespaces of its own, as far as the kernel lets it have some. With ``on`` the log says what the kernel
    lacks. Raises HostError: with ``strict`` for what it lacks, and where a step fails.
    """
    lacks = lacking()
    if lacks and mode == STRICT:
        raise HostError(f"sandbox={STRICT}: {lacks[0]}")
    for line in lacks:
        log.warning("%s: sandbox=%s does without: %s", name, ON, line)
    sys.dont_write_bytecode = True  # of modules that are imported from now on
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _calls.set_dumpable(False)
        no_new_privileges()
        # In this order: the first takes capabilities, which go with the second, if not with the third.
        if alone:
            namespaces.leave_the_hosts(wanted, name)
        if user is not None:
            users.become(user)
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
        _calls.restrict_this_thread(rules)
        threads.change_others()
    finally:
        if rules >= 0:
            os.close(rules)


def give_up(mode: str, wanted: Needs, name: str, user: User | None, *, alone: bool = True) -> None:
    """``confine`` this process, unless *mode* is off, and be *user* from now on, if one is given. Raises HostError,
    also for a file that *user* will not be able to open.
    """
    if mode != OFF:
        confine(mode, wanted, name, user, alone=alone)
    elif user is not None:
        users.become(user)
    if user is None:
        return
    for paths, way, word in ((wanted.reads, os.R_OK, "read"), (wanted.writes, os.W_OK, "write")):
        for path in paths:
            if not os.access(path, way):
                raise HostError(f"the user {user.text} can't {word} {path}, which is opened later")
