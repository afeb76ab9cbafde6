"""Locks of disk images, on the bytes that QEMU locks: QEMU, its storage daemon and we refuse one another.

They are open file description locks (fcntl(2)): each opening has its own, in one process too, and they end with it.
QEMU (block/file-posix.c) has two bytes for each permission: at 100 + permission those who use it have a read lock, at
200 + permission those who do not let others use it. Whoever comes takes its own bytes, then looks whether anybody
else's stand against it. Writing is the only permission that disks disagree about.

A part of an image (``range=``) is locked itself, for the original does so. Whoever has one stands against everybody who
uses the whole image, and lets in others who have parts. They know one another by a byte of ours: the first of them
finds no other user, and keeps out those who come later, so the next ones need not look.
"""

import errno
import fcntl
import logging
import os
import struct
import time
from collections.abc import Callable

from acrn_dm.base.process import processes
from acrn_dm.base.records import frozen

log = logging.getLogger(__name__)

FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, len, pid
PERM_BASE, SHARED_BASE = 100, 200  # QEMU's RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE
READ, WRITE = 0, 1  # bit numbers of its BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE
PARTS = 250  # who has a part of the image
FIRST = 256  # of a part that begins at 0: the bytes below are none of its locks
TRIES, PAUSE_S = 20, 0.01  # another part's owner may be between its bytes and the mark
LEAVING_S = 2.0  # the kernel takes down what a killed process had
NOT_PROVIDED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # by the file system


@frozen(kw_only=True)
class Access:
    """One user's access: *shares* lets others write whatever it does itself, *part* is (first byte, length)."""

    writes: bool = True
    shares: bool = False
    part: tuple[int, int] | None = None

    def excludes(self, other: "Access") -> bool:
        """Whether the two can't use one file together."""
        if self.shares or other.shares or (self.part is None and other.part is None):
            return (self.announces and not other.shares) or (other.announces and not self.shares)
        if self.part is None or other.part is None:
            return True
        (a, a_size), (b, b_size) = self.part, other.part
        return (self.writes or other.writes) and a < b + b_size and b < a + a_size

    @property
    def announces(self) -> bool:
        """Whether others are told that it writes; the owner of a part says so in any case."""
        return self.writes or self.own_part is not None

    @property
    def own_part(self) -> tuple[int, int] | None:
        """The part that is locked; none where others may write."""
        return None if self.shares else self.part


def take(fd: int, access: Access) -> bool:
    """Lock the image that is open as *fd*, until it is closed; False when somebody else's use stands against it.

    Raises OSError. A file system without such locks is said and not an error.
    """
    try:
        for byte in _bytes(access):
            _set(fd, fcntl.F_RDLCK, byte, 1)
        if not _admitted(fd, access):
            _set(fd, fcntl.F_UNLCK, 0, 0)
            return False
    except OSError as e:
        if e.errno not in NOT_PROVIDED:
            raise
        log.warning("%s can't be locked (%s): nobody else is kept from it", _path(fd), e.strerror)
    return True


def is_free(fd: int, access: Access) -> bool:
    """Whether ``take`` would succeed now; takes nothing. Raises OSError."""
    try:
        part = access.own_part
        return not _stands_against(fd, access) and (part is None or not _held(fd, *_lock_of(access, part)))
    except OSError as e:
        if e.errno not in NOT_PROVIDED:
            raise
    return True


def soon(attempt: Callable[[], bool], fd: int) -> bool:
    """Whether *attempt* to lock the file that is open as *fd* succeeds, now or when a lock that is nobody's has gone.

    That of a killed process stays for a moment where it had an io_uring, which the kernel takes down behind its back.
    """
    deadline = time.monotonic() + LEAVING_S
    while not attempt():
        if time.monotonic() > deadline or holder(fd) is not None:
            return False
        time.sleep(PAUSE_S)
    return True


def take_content(fd: int, *, writes: bool) -> bool:
    """Lock a file whose content is taken as it is now, or *writes* for one that is written back; else as ``take``.

    The original's way with firmware, a read lock or a write lock on everything, but for the bytes that QEMU locks: it
    may read a file that others read.
    """
    try:
        _set(fd, *_content(writes))
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if e.errno not in NOT_PROVIDED:
            raise
    return take(fd, Access()) if writes else True


def content_is_free(fd: int, *, writes: bool) -> bool:
    """Whether ``take_content`` would succeed now; takes nothing. Raises OSError."""
    try:
        if _held(fd, *_content(writes)):
            return False
    except OSError as e:
        if e.errno not in NOT_PROVIDED:
            raise
    return is_free(fd, Access()) if writes else True


def holder(fd: int) -> str | None:
    """Who has a lock on the file that is open as *fd*, in words; None where that can't be told.

    The kernel says no process for these locks in /proc/locks: they are looked for among the files of all processes, as
    far as we may look.
    """
    own = os.fstat(fd)
    for pid, number in processes.openers(lambda s: (s.st_dev, s.st_ino) == (own.st_dev, own.st_ino)):
        if (pid, number) != (os.getpid(), fd) and "lock:" in processes.fd_information(pid, number):
            return processes.describe(pid)
    return None


def _bytes(access: Access) -> list[int]:
    """Those that QEMU locks for such a user."""
    found = [PERM_BASE + READ]
    found += [PERM_BASE + WRITE] if access.announces else []
    return found if access.shares else [*found, SHARED_BASE + WRITE]


def _admitted(fd: int, access: Access) -> bool:
    part = access.own_part
    if part is None:
        return not _stands_against(fd, access)
    for _ in range(TRIES):
        if not _stands_against(fd, access):
            break
        time.sleep(PAUSE_S)
    else:
        return False
    _set(fd, fcntl.F_RDLCK, PARTS, 1)
    try:
        _set(fd, *_lock_of(access, part))
    except (BlockingIOError, PermissionError):  # EAGAIN, EACCES
        return False
    return True


def _stands_against(fd: int, access: Access) -> bool:
    """Whether somebody else writes, or lets nobody write, where that matters to *access*."""
    if access.own_part is not None and _held(fd, fcntl.F_WRLCK, PARTS, 1):
        return False
    if access.announces and _held(fd, fcntl.F_WRLCK, SHARED_BASE + WRITE, 1):
        return True
    return not access.shares and _held(fd, fcntl.F_WRLCK, PERM_BASE + WRITE, 1)


def _lock_of(access: Access, part: tuple[int, int]) -> tuple[int, int, int]:
    """Type, start and length of the lock of *part*."""
    start, end = max(part[0], FIRST), part[0] + part[1]
    return fcntl.F_WRLCK if access.writes else fcntl.F_RDLCK, start, end - start


def _content(writes: bool) -> tuple[int, int, int]:
    return fcntl.F_WRLCK if writes else fcntl.F_RDLCK, FIRST, 0


def _set(fd: int, kind: int, start: int, length: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def _held(fd: int, kind: int, start: int, length: int) -> bool:
    """Whether anybody else's lock stands against one of *kind*. Lets a descriptor for reading ask for writing."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    return int(FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK


def _path(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
