"""The filter of system calls (seccomp_unotify(2), linux/seccomp.h) of one process, for all of its threads.

What no rule allows fails with EPERM. With *strict* a call that nothing here makes by mistake (``groups.FLAGRANT``) ends
the process with SIGSYS. A call that can't be judged by its numbers fails with ENOSYS where there is an older one.
"""

import errno

from acrn_dm.base.sandbox import bpf, groups
from acrn_dm.base.sandbox._calls import filter_calls
from acrn_dm.base.sandbox.needs import Needs
from acrn_dm.base.sandbox.numbers import NUMBERS

REFUSED = bpf.ERRNO | errno.EPERM


def program(wanted: Needs, pid: int, *, strict: bool) -> bytes:
    """The filter of process *pid*."""
    flagrant = bpf.KILL if strict else REFUSED
    decisions: dict[int, tuple[groups.Checks, ...] | int] = {
        NUMBERS[name]: bpf.ALLOW if rule == groups.ALWAYS else rule
        for name, rule in groups.rules(wanted, pid, strict=strict).items()
    }
    decisions |= dict.fromkeys((NUMBERS[name] for name in groups.FLAGRANT.split()), flagrant)
    decisions |= dict.fromkeys((NUMBERS[name] for name in groups.ABSENT.split()), bpf.ERRNO | errno.ENOSYS)
    return bpf.assemble(decisions, REFUSED, flagrant)


def put_on(wanted: Needs, pid: int, *, strict: bool) -> None:
    """Filter what this process, which is *pid*, calls from now on. Raises OSError."""
    filter_calls(program(wanted, pid, strict=strict))
