"""Rules of Landlock (landlock(7), linux/landlock.h): which paths and TCP ports this process reaches from now on, and
that it reaches no abstract socket and, by a signal, no process outside.

What a kernel does not know is left out: the rights of files are complete but for truncating (ABI 3) and the ioctls of
device nodes (ABI 5), ports came with ABI 4, sockets and signals with ABI 6. Open descriptors keep what they can.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from acrn_dm.base.sandbox import _calls
from acrn_dm.base.sandbox.needs import Needs

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
MAKE_DIR, MAKE_REG, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 14, 1 << 15
BY_VERSION = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: IOCTL_DEV}  # of files; LANDLOCK_ACCESS_FS_*
OF_A_FILE = WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READS = READ_FILE | READ_DIR
WRITES = READS | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
BIND_TCP, CONNECT_TCP, PORTS_FROM = 1, 2, 4
ABSTRACT_SOCKETS, SIGNALS, SCOPES_FROM = 1, 2, 6
THREADS_MAY_SIGNAL = 1 << 1  # the second erratum: before that each thread was a process outside to the others

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")
COMMON = ("/proc/self", "/dev/null", "/dev/urandom")


def version() -> int:
    """The ABI of this kernel's Landlock; 0: it has none, or none was asked for at its start (lsm=)."""
    try:
        return _calls.landlock_version()
    except OSError:
        return 0


def ruleset(wanted: Needs, abi: int) -> int:
    """A descriptor of the rules for *wanted* and for modules that are imported late. Raises OSError, which names the
    path that a device needs and is not there.
    """
    files = sum(rights for since, rights in BY_VERSION.items() if since <= abi)
    scoped = ABSTRACT_SOCKETS | (SIGNALS if _calls.landlock_errata() & THREADS_MAY_SIGNAL else 0)
    rules = _calls.landlock_ruleset(
        files, BIND_TCP | CONNECT_TCP if abi >= PORTS_FROM else 0, scoped if abi >= SCOPES_FROM else 0
    )
    try:
        _grant(rules, wanted, files)
        if abi >= PORTS_FROM:
            for port in set(wanted.tcp_ports):
                _calls.landlock_port(rules, port, CONNECT_TCP)
    except BaseException:
        os.close(rules)
        raise
    return rules


def modules() -> Iterator[str]:
    """Where Python's modules are: folders of the module path, and of packages that are found in another way."""
    yield from filter(os.path.isabs, sys.path)
    for name, module in list(sys.modules.items()):
        if "." not in name:
            with contextlib.suppress(TypeError):
                yield from filter(os.path.isabs, getattr(module, "__path__", None) or ())
    if sys.pycache_prefix:
        yield os.path.abspath(sys.pycache_prefix)


def _grant(rules: int, wanted: Needs, known: int) -> None:
    for path in dict.fromkeys((*modules(), *LIBRARIES, *COMMON)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            _allow(rules, path, READS & known)
    for paths, rights in ((wanted.reads, READS), (wanted.writes, WRITES)):
        _allow_all(rules, paths, (rights | IOCTL_DEV) & known)  # which requests the filter says, for all nodes


def _allow_all(rules: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        _allow(rules, os.fspath(path), rights)


def _allow(rules: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= OF_A_FILE
        _calls.landlock_path(rules, fd, rights)
    finally:
        os.close(fd)
