"""Another user for this process: whom a text names, and the way to become it, for good (credentials(7))."""

import os
import re

from acrn_dm.base._libc import set_no_new_privs
from acrn_dm.base.errors import HostError
from acrn_dm.base.records import frozen

MAX_ID = (1 << 32) - 2  # the last one means none
NUMBER = r"[0-9]{1,10}"


@frozen(kw_only=True)
class User:
    """A user and a group of this host, by their numbers; *text* is how they were written."""

    text: str
    uid: int
    gid: int


def find(text: str) -> User:
    """The user of ``NAME|UID[:GROUP]``, with its own group where none is named. Raises ValueError for one that is not
    there, and for root, whom nobody has to become.
    """
    import pwd  # noqa: PLC0415  # for those who name one

    name, colon, group = text.partition(":")
    entry: pwd.struct_passwd | None = None
    try:
        entry = pwd.getpwuid(_number(name)) if re.fullmatch(NUMBER, name) else pwd.getpwnam(name)
    except KeyError:
        if not re.fullmatch(NUMBER, name):
            raise ValueError("no such user; expected NAME or UID, perhaps with :GROUP behind it") from None
    uid = _number(name) if entry is None else entry.pw_uid
    if uid == 0:
        raise ValueError("expected a user without the rights of root")
    if colon:
        return User(text=text, uid=uid, gid=_group(group))
    if entry is None:
        raise ValueError(f"nobody is told of here by this number, so it needs a group: {name}:GROUP")
    return User(text=text, uid=uid, gid=entry.pw_gid)


def problem(user: User) -> str | None:
    """Why this process can't become *user*; None: it can, as far as looking tells."""
    if is_already(user):
        return None
    return None if os.geteuid() == 0 else "only root can become another user"


def is_already(user: User) -> bool:
    """Whether this process is *user*, and in no other group."""
    ids, groups = (*os.getresuid(), *os.getresgid()), set(os.getgroups())
    return ids == (user.uid,) * 3 + (user.gid,) * 3 and groups <= {user.gid}


def become(user: User) -> None:
    """Be *user* from now on, all threads: no other group, no way back, and no program that brings one. Without root's
    rights there are no capabilities any more, and no process of *user* can attach to this one. Raises HostError.
    """
    try:
        if not is_already(user):
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)  # the C library's, which do it in all threads
            os.setresuid(user.uid, user.uid, user.uid)
        set_no_new_privs()
    except OSError as e:
        raise HostError.from_os(f"becoming the user {user.text}", e) from e
    if not is_already(user):
        raise HostError(f"becoming the user {user.text}: the kernel did as asked in part only")
    for module in (os.__file__, __file__):
        if not os.access(module, os.R_OK):
            raise HostError(
                f"the user {user.text} can't read Python's modules, such as {module}: some are imported late"
            )


def _group(text: str) -> int:
    import grp  # noqa: PLC0415  # for those who name one

    if re.fullmatch(NUMBER, text):
        return _number(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(f"no such group: {text!r}; expected NAME or GID behind the colon") from None


def _number(text: str) -> int:
    if int(text) > MAX_ID:
        raise ValueError(f"{text} is no number of a user or group; the last one is {MAX_ID}")
    return int(text)
