"""Groups of system calls: those that every device may make, those that some name as needs, and those that no device
makes by mistake.

A call that takes a kind of thing by a number is allowed for some numbers only: ``Check``. The kernel lets a filter see
the numbers that are handed over, and nothing in memory.
"""

import os
import socket
import termios

from acrn_dm.base.records import frozen
from acrn_dm.base.sandbox import needs

OPEN_CHANGES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC  # without any of these bits open(2) reads
CLONE_THREAD, CLONE_NEW = 0x10000, 0x7E020000  # linux/sched.h; the latter are all kinds of namespaces
SOCKET_TYPE = 0xF  # the others are SOCK_NONBLOCK and SOCK_CLOEXEC
PRCTL = (3, 4, 15, 16, 21, 29, 30, 39, 0x53564D41)  # linux/prctl.h: dumpable (get and set), name, seccomp (get),
# timer slack, no_new_privs (get), the name of a mapping (glibc, CPython)


@frozen(kw_only=True)
class Check:
    """The argument number *arg*: its low word and *mask* is one of *values*. *wide*: its high word is 0, too."""

    arg: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    wide: bool = False


Checks = tuple[Check, ...]  # all hold
Rules = dict[str, tuple[Checks, ...]]  # by the name of a call: one of them holds; one without checks always does
ALWAYS: tuple[Checks, ...] = ((),)

RUN = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range fstat lseek mmap mprotect
munmap mremap madvise brk msync mincore futex futex_waitv set_robust_list get_robust_list rseq membarrier sched_yield
sched_getaffinity sched_setaffinity getcpu rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigtimedwait
rt_sigpending rt_sigsuspend restart_syscall getpid gettid getppid getpgrp getsid getuid geteuid getgid getegid getgroups
getresuid getresgid clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom exit exit_group
uname sysinfo getrlimit getrusage times set_tid_address capget
"""
WAIT = """
poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 timerfd_create
timerfd_settime timerfd_gettime signalfd4 io_setup io_submit io_destroy io_getevents io_pgetevents io_cancel
"""
FILES = """
dup dup2 dup3 fcntl flock ftruncate fallocate fsync fdatasync sync_file_range fadvise64 pipe2 memfd_create splice tee
sendmsg recvmsg sendmmsg recvmmsg sendto recvfrom shutdown getsockopt setsockopt getsockname getpeername
"""
LOOK = """
stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd statfs fstatfs
"""
CHANGE = "unlink unlinkat mkdir mkdirat rename renameat renameat2"
FLAGRANT = """
execve execveat ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp mount umount2 pivot_root
move_mount mount_setattr open_tree fsopen fsconfig fsmount fspick chroot unshare setns bpf perf_event_open userfaultfd
kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl quotactl_fd iopl
ioperm add_key request_key keyctl open_by_handle_at settimeofday clock_settime clock_adjtime adjtimex sethostname
setdomainname syslog vhangup modify_ldt seccomp capset setuid setgid setreuid setregid setresuid setresgid setfsuid
setfsgid setgroups mknod mknodat personality
"""
ABSENT = "clone3 openat2"  # what they ask for is in memory: who calls them knows the older calls

IOCTLS = (termios.FIONREAD, termios.FIONBIO, termios.FIOCLEX, termios.FIONCLEX, termios.TCGETS, termios.TIOCGWINSZ)
GROUP_IOCTLS = {
    # linux/fs.h: BLKGETSIZE64, BLKDISCARD, BLKSSZGET, BLKPBSZGET, BLKSECDISCARD, BLKZEROOUT
    needs.BLOCK: (0x80081272, 0x1277, 0x1268, 0x127B, 0x127D, 0x127F),
    # linux/if_tun.h: TUNSETOFFLOAD, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, TUNSETQUEUE
    needs.TAP: (0x400454D0, 0x800454D7, 0x400454D8, 0x400454D9),
    needs.TERMINAL: (
        *(termios.TCSETS, termios.TCSETSW, termios.TCSETSF, termios.TCFLSH, termios.TCXONC, termios.TCSBRK),
        *(termios.TIOCOUTQ, termios.TIOCSWINSZ, termios.TIOCMGET, termios.TIOCGPGRP),
    ),
}
# The type of request numbers, all of whose requests are one kernel module's (asm-generic/ioctl.h)
GROUP_TYPES = {needs.KVM: 0xAE, needs.VHOST: 0xAF}
TYPE_MASK = 0xFF00
STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)  # a datagram could be sent to any address


def rules(wanted: needs.Needs, pid: int, *, strict: bool) -> Rules:
    """What the process *pid* may call."""
    found: Rules = dict.fromkeys((RUN + WAIT + FILES + LOOK).split(), ALWAYS)
    requests = [*IOCTLS, *wanted.ioctls]
    for group in sorted(set(wanted.groups)):
        requests += GROUP_IOCTLS.get(group, ())
    found |= {
        "clone": _if(Check(arg=0, values=(CLONE_THREAD,), mask=CLONE_THREAD | CLONE_NEW)),
        "kill": _if(Check(arg=0, values=(pid,))),
        "tgkill": _if(Check(arg=0, values=(pid,))),
        "prctl": _if(Check(arg=0, values=PRCTL)),
        "prlimit64": _if(Check(arg=2, values=(0,), wide=True)),
        "ioctl": (*_if(Check(arg=1, values=tuple(dict.fromkeys(requests)))), *_types(wanted)),
        "socketpair": _if(Check(arg=0, values=(socket.AF_UNIX,)), Check(arg=1, values=STREAMS, mask=SOCKET_TYPE)),
    }
    return found | _files(wanted) | _sockets(wanted) | _io_uring(wanted, strict=strict)


def _types(wanted: needs.Needs) -> tuple[Checks, ...]:
    kinds = tuple(GROUP_TYPES[group] << 8 for group in sorted(set(wanted.groups) & GROUP_TYPES.keys()))
    return _if(Check(arg=1, values=kinds, mask=TYPE_MASK)) if kinds else ()


def _if(*checks: Check) -> tuple[Checks, ...]:
    return (checks,)


def _files(wanted: needs.Needs) -> Rules:
    """Modules that are imported late are opened, too; Landlock says where."""
    if wanted.writes:
        return dict.fromkeys(("open", "openat", *CHANGE.split()), ALWAYS)
    return {
        "open": _if(Check(arg=1, values=(0,), mask=OPEN_CHANGES)),
        "openat": _if(Check(arg=2, values=(0,), mask=OPEN_CHANGES)),
    }


def _sockets(wanted: needs.Needs) -> Rules:
    families = [(socket.AF_UNIX, needs.CONNECT in wanted.groups)]
    families += [(family, bool(wanted.tcp_ports)) for family in (socket.AF_INET, socket.AF_INET6)]
    kind = Check(arg=1, values=STREAMS, mask=SOCKET_TYPE)
    found: Rules = {}
    if any(allowed for _, allowed in families):
        chosen = tuple(int(family) for family, allowed in families if allowed)
        found = {"socket": _if(Check(arg=0, values=chosen), kind), "connect": ALWAYS}
    if needs.CHILDREN in wanted.groups:
        found["wait4"] = ALWAYS
    if needs.ACCEPT in wanted.groups:
        found |= dict.fromkeys(("accept", "accept4"), ALWAYS)
    return found


def _io_uring(wanted: needs.Needs, *, strict: bool) -> Rules:
    if needs.IO_URING not in wanted.groups or strict:
        return {}
    return dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), ALWAYS)
