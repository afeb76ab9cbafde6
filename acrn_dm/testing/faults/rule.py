"""One fault as a record, and the line of a script that says it.

::

    fail preadv nth=3 errno=EIO path=*/disk.img
    short pwritev bytes=512
    delay fdatasync seconds=2.5 times=2
    reorder pwritev
    fail vm.irqfd errno=ENOSPC
    fail backend.start nth=2
    lose interrupt nth=2 of="3.0 vector 1"
"""

import errno
import fnmatch
import shlex
from collections.abc import Mapping
from typing import Any

import attrs

KINDS = ("fail", "delay", "short", "reorder", "lose")
INTERRUPT = "interrupt"


def _errno(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if not hasattr(errno, value):
        raise ValueError(f"errno {value!r} is none: EIO, ENOSPC, ...")
    return int(getattr(errno, value))


def _in(low: int) -> Any:
    def check(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if value < low:
            raise ValueError(f"{attribute.name} {value}: at least {low}")

    return check


@attrs.define(kw_only=True, eq=False)
class Fault:
    """One fault: *kind* happens to the *nth* call (from 1, of those that match) and to the *times* - 1 that follow it.

    *call* is a function of ``os`` or ``fcntl`` (``preadv``, ``ioctl``), a method of sockets (``socket.send``), a call
    of the hypervisor (``vm.irqfd``), a method of a device's backend (``backend.start``) or ``interrupt``. *path* and
    *of* are patterns as in a shell: of the file's path, and of what is interrupted (``3.0 vector 1``). ``happened``
    counts.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(KINDS))
    call: str
    nth: int = attrs.field(default=1, converter=int, validator=_in(1))
    times: int = attrs.field(default=1, converter=int, validator=_in(1))
    errno: int = attrs.field(default=errno.EIO, converter=_errno)
    seconds: float = attrs.field(default=0.0, converter=float, validator=_in(0))
    bytes: int = attrs.field(default=0, converter=int, validator=_in(0))
    path: str | None = None
    of: str | None = None
    seen: int = attrs.field(default=0, init=False)
    happened: int = attrs.field(default=0, init=False)

    def strikes(self, *, path: str | None, of: str | None) -> bool:
        """Count a call of this name; return whether the fault happens to it."""
        for pattern, value in ((self.path, path), (self.of, of)):
            if pattern is not None and not fnmatch.fnmatchcase(value or "", pattern):
                return False
        self.seen += 1
        if not self.nth <= self.seen < self.nth + self.times:
            return False
        self.happened += 1
        return True

    def __str__(self) -> str:
        values = {
            "nth": self.nth if self.nth != 1 else None,
            "times": self.times if self.times != 1 else None,
            "errno": errno.errorcode.get(self.errno, str(self.errno)) if self.kind == "fail" else None,
            "seconds": f"{self.seconds:g}" if self.kind == "delay" else None,
            "bytes": self.bytes if self.kind == "short" else None,
            "path": self.path,
            "of": self.of,
        }
        options = [f"{name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None]
        return " ".join([self.kind, self.call, *options])


def parse(line: str) -> Fault:
    """The fault that one line of a script says. Raises ValueError with the line."""
    words = shlex.split(line)
    try:
        if len(words) < 2:
            raise ValueError("expected what happens and to which call")
        options: Mapping[str, Any] = dict(word.split("=", 1) for word in words[2:])
        known = {"nth", "times", "errno", "seconds", "bytes", "path", "of"}
        if options.keys() - known:
            raise ValueError(f"unknown: {', '.join(sorted(options.keys() - known))}")
        return Fault(kind=words[0], call=words[1], **options)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{line!r}: {e.args[0]}") from e
