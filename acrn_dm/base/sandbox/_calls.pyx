# cython: auto_pickle=False, autotestdict=False
"""The kernel's calls that make a sandbox: seccomp(2), landlock(7), prctl(2). Each raises OSError."""

from libc.errno cimport errno
from libc.stdint cimport int32_t, uint16_t, uint64_t
from libc.string cimport strerror

cdef extern from "base/sandbox/threads.h" nogil:
    int SANDBOX_LANDLOCK_CREATE
    int SANDBOX_LANDLOCK_ADD
    enum: SANDBOX_NAMESPACES
    int sandbox_namespaces[]
    int sandbox_moves
    int sandbox_ruleset
    int sandbox_this_thread()
    int sandbox_other_thread(int tid, int milliseconds)

cdef extern from "<sys/syscall.h>" nogil:
    int SYS_seccomp
    int SYS_unshare

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_DUMPABLE
    int prctl(int option, ...)

cdef enum:
    VERSION = 1  # LANDLOCK_CREATE_RULESET_*
    ERRATA = 2
    PATH_BENEATH = 1  # LANDLOCK_RULE_*
    NET_PORT = 2
    FILTER = 1  # SECCOMP_SET_MODE_FILTER
    TSYNC = 1  # SECCOMP_FILTER_FLAG_TSYNC
    INSTRUCTION = 8  # bytes of struct sock_filter

cdef struct Ruleset:  # struct landlock_ruleset_attr
    uint64_t fs
    uint64_t net
    uint64_t scoped

cdef packed struct PathBeneath:  # struct landlock_path_beneath_attr
    uint64_t allowed
    int32_t parent

cdef struct NetPort:  # struct landlock_net_port_attr
    uint64_t allowed
    uint64_t port

cdef struct Program:  # struct sock_fprog
    uint16_t length
    const void *instructions


cdef object _error(int err):
    return OSError(err, strerror(err).decode())


def landlock_version():
    """The ABI of Landlock in this kernel. Raises OSError where there is none, or it was not started."""
    cdef long found = syscall(SANDBOX_LANDLOCK_CREATE, <void *>NULL, <size_t>0, <int>VERSION)
    if found < 0:
        raise _error(errno)
    return found


def landlock_errata():
    """The errata that are mended in this kernel, a bit for each; 0 where it does not tell."""
    cdef long found = syscall(SANDBOX_LANDLOCK_CREATE, <void *>NULL, <size_t>0, <int>ERRATA)
    return found if found > 0 else 0


def landlock_ruleset(uint64_t fs, uint64_t net, uint64_t scoped):
    """A descriptor of rules that refuse these rights unless a rule grants them."""
    cdef Ruleset rules = Ruleset(fs, net, scoped)
    cdef size_t size = sizeof(rules) if scoped else 16 if net else 8  # older kernels take no larger ones
    cdef long found = syscall(SANDBOX_LANDLOCK_CREATE, &rules, size, 0)
    if found < 0:
        raise _error(errno)
    return found


def landlock_path(int rules, int parent, uint64_t allowed):
    """Grant the rights *allowed* to what *parent* is, and what lies below it."""
    cdef PathBeneath rule = PathBeneath(allowed, parent)
    if syscall(SANDBOX_LANDLOCK_ADD, rules, <int>PATH_BENEATH, &rule, 0) != 0:
        raise _error(errno)


def landlock_port(int rules, uint64_t port, uint64_t allowed):
    """Grant the rights *allowed* to the TCP port *port*."""
    cdef NetPort rule = NetPort(allowed, port)
    if syscall(SANDBOX_LANDLOCK_ADD, rules, <int>NET_PORT, &rule, 0) != 0:
        raise _error(errno)


def restrict_this_thread(int rules):
    """Hold this thread to *rules* (-1: none) and take all its capabilities from it."""
    global sandbox_moves, sandbox_ruleset
    sandbox_moves = 0
    sandbox_ruleset = rules
    cdef int err = sandbox_this_thread()
    if err:
        raise _error(err)


def move_this_thread(fds):
    """Have this thread go into the namespaces that *fds* are, descriptors in /proc/PID/ns, three at most."""
    global sandbox_moves
    cdef int i
    given = [*fds, *[-1] * SANDBOX_NAMESPACES]
    for i in range(SANDBOX_NAMESPACES):
        sandbox_namespaces[i] = given[i]
    sandbox_moves = 1
    cdef int err = sandbox_this_thread()
    if err:
        raise _error(err)


def change_thread(int tid, int milliseconds):
    """Have another thread of this process do what ``restrict_this_thread`` or ``move_this_thread``, whichever was
    called last, did here. Raises OSError: ESRCH if there is none, ETIMEDOUT where it takes no signal.
    """
    cdef int err
    with nogil:
        err = sandbox_other_thread(tid, milliseconds)
    if err:
        raise _error(err)


def unshare(int flags):
    """unshare(2): new namespaces for this thread."""
    if syscall(SYS_unshare, flags) != 0:
        raise _error(errno)


def set_dumpable(bint on):
    """PR_SET_DUMPABLE. Off: nobody attaches to this process but who has CAP_SYS_PTRACE, and it leaves no core."""
    if prctl(PR_SET_DUMPABLE, <unsigned long>on, <unsigned long>0, <unsigned long>0, <unsigned long>0) != 0:
        raise _error(errno)


def has_seccomp_action(unsigned int action):
    """Whether this kernel's filters know *action* (SECCOMP_GET_ACTION_AVAIL)."""
    return syscall(SYS_seccomp, 2, 0, &action) == 0


def filter_calls(const unsigned char[::1] program):
    """Put the filter *program*, instructions of struct sock_filter, on all threads of this process."""
    cdef Program filter_ = Program(<uint16_t>(program.shape[0] // INSTRUCTION), &program[0])
    cdef long found = syscall(SYS_seccomp, <int>FILTER, <int>TSYNC, &filter_)
    if found < 0:
        raise _error(errno)
    if found > 0:
        raise OSError(3, f"thread {found} has a filter of its own")  # ESRCH, as the kernel has it with TSYNC_ESRCH
