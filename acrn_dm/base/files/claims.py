"""Claims on things of the host: two parts of a machine that want the same one are refused before anything is open.

Other machines and programs are another matter: what keeps them away (locks, addresses in use) is found when a part
looks at what it will open, and once more when it opens it.
"""

import os
import stat
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from acrn_dm.base.files.file_locks import Access
from acrn_dm.base.records import frozen

ALONE = Access()


@frozen(kw_only=True)
class Claim:
    """One thing that is used: *key* is what it is, whatever its name, *what* how the user named it."""

    key: tuple[Hashable, ...]
    what: str
    access: Access = ALONE
    hint: str = ""  # what to do where two of them want it


@runtime_checkable
class Claimant(Protocol):
    """A device that uses something that only one can have. Asked before anything is open."""

    def claims(self) -> Sequence[Claim]:
        """What it will use."""


def conflicts(users: Iterable[tuple[str, Claim]]) -> list[str]:
    """One line for each claim that can't stand beside an earlier one; *users* are names with their claims."""
    lines = []
    earlier: dict[tuple[Hashable, ...], list[tuple[str, Claim]]] = {}
    for user, claim in users:
        others = earlier.setdefault(claim.key, [])
        rival = next((other for other in others if claim.access.excludes(other[1].access)), None)
        if rival is not None:
            name = f", as {rival[1].what}," if rival[1].what != claim.what else ""
            lines.append(f"{user}: {claim.what} is used by {rival[0]}{name} already{claim.hint and '; ' + claim.hint}")
        others.append((user, claim))
    return lines


def path_key(path: Path) -> tuple[Hashable, ...]:
    """What *path* leads to: the same for a link's target, another name of the file, another node of the device."""
    try:
        status = path.stat()
    except OSError:
        return name_key(path)
    if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return ("node", stat.S_IFMT(status.st_mode), status.st_rdev)
    return ("file", status.st_dev, status.st_ino)


def name_key(path: Path) -> tuple[Hashable, ...]:
    """The place in its directory that *path* names, whether there is something or not."""
    return ("name", os.path.realpath(path))


def socket_claim(path: Path) -> Claim:
    """A UNIX socket that serves one user: of the one who connects to it, or of the one who makes it."""
    return Claim(key=name_key(path), what=f"socket {path}")
