"""The needs of one device once it is open, beyond those that every device has."""

from collections.abc import Callable, Collection
from pathlib import Path

import attrs

from acrn_dm.base.records import frozen

BLOCK, CONNECT, ACCEPT, IO_URING, TAP, TERMINAL = "block", "connect", "accept", "io_uring", "tap", "terminal"
CHILDREN, KVM, VHOST = "children", "kvm", "vhost"
GROUPS = {
    ACCEPT: "take connections at a UNIX socket that is listening already",
    BLOCK: "ask and discard on an open block device",
    CHILDREN: "hear of the end of processes that it has started",
    CONNECT: "connect to UNIX sockets",
    IO_URING: "set up io_uring; strict refuses it, as what is done there passes by the filter",
    KVM: "run an open virtual machine of KVM's, and make another",
    TAP: "set offloads, headers and queues of an open tap",
    TERMINAL: "set the modes of an open terminal",
    VHOST: "start and stop an open vhost device",
}
MAX_IOCTL, MAX_PORT, MOST = (1 << 32) - 1, (1 << 16) - 1, 100


def _are_groups(instance: object, attribute: object, value: Collection[str]) -> None:
    unknown = sorted(set(value) - GROUPS.keys())
    if unknown:
        raise ValueError(f"groups: {unknown[0]!r} is none; there are {', '.join(sorted(GROUPS))}")


def _up_to(most: int) -> Callable[[object, "attrs.Attribute[Collection[int]]", Collection[int]], None]:
    def check(instance: object, attribute: "attrs.Attribute[Collection[int]]", value: Collection[int]) -> None:
        if len(value) > MOST:  # a filter's jumps are short
            raise ValueError(f"{attribute.name}: at most {MOST} can be named")
        wrong = [number for number in value if not 0 <= number <= most]
        if wrong:
            raise ValueError(f"{attribute.name}: {wrong[0]} is not from 0 to {most}")

    return check


@frozen(kw_only=True)
class Needs:
    """The needs of a device that serves, beyond those of all, as its ``sandbox_needs`` tells. What is open stays open:
    of descriptors that it has already only *groups* and *ioctls* tell.

    *reads* and *writes* are files, or folders with all below them; a folder of *writes* may get new files and lose
    some. *groups* are keys of ``GROUPS``; *ioctls* request numbers of ioctl(2); *tcp_ports* those that it connects to.
    Raises ValueError for what is none.
    """

    reads: Collection[Path] = ()
    writes: Collection[Path] = ()
    groups: Collection[str] = attrs.field(default=(), validator=_are_groups)
    ioctls: Collection[int] = attrs.field(default=(), validator=_up_to(MAX_IOCTL))
    tcp_ports: Collection[int] = attrs.field(default=(), validator=_up_to(MAX_PORT))

    def joined(self, other: "Needs") -> "Needs":
        """These and those of *other*."""
        names = ("reads", "writes", "groups", "ioctls", "tcp_ports")
        return Needs(**{name: (*getattr(self, name), *getattr(other, name)) for name in names})
