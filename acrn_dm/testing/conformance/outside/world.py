"""The world beyond a device: the host's side of it, as far as the rules of its kind look there or act there.

A caller passes one to ``conform(build, outside=...)``; it belongs to the device that *build* put into the machine last.
Every method may be left out: then the rules that need it are not applicable, with the reason. Nothing here waits; a
rule settles the machine after each call that does something.
"""

from collections.abc import Sequence
from typing import NoReturn

import attrs

from acrn_dm.testing.conformance.table import NotApplicable
from acrn_dm.testing.guest_pci import GuestFunction


def _left_out(what: str) -> NoReturn:
    raise NotApplicable(f"the outside that was given has no {what}")


class Outside:
    """The base of all kinds."""

    def make_room(self) -> bool:
        """Take what came out of the device, where more would have to wait; whether anything was there."""
        return False


@attrs.frozen
class Frame:
    """A frame on the wire. *header* is what the network was asked to do with it (checksum, segmentation): the first ten
    bytes of struct virtio_net_hdr; empty where nothing of the kind is left to do, or nobody can be told.
    """

    data: bytes
    header: bytes = b""


class Network(Outside):
    """The network of a card (virtio 5.1)."""

    def deliver(self, frame: bytes) -> None:
        """Let *frame*, checksummed and in one piece, arrive at the card."""
        _left_out("deliver: frames for the guest")

    def deliver_unfinished(self, header: bytes, frame: bytes) -> None:
        """Let a frame arrive that needs a checksum or segmentation, as *header*, ten bytes, says: as from another
        virtual machine on this host.
        """
        _left_out("deliver_unfinished: frames with offloads")

    def seen(self) -> Sequence[Frame]:
        """Frames that the card sent since the last call."""
        _left_out("seen: frames of the guest")

    def set_link(self, up: bool) -> None:
        """Plug the cable in, or pull it out."""
        _left_out("set_link")

    def ask_for_announcement(self) -> None:
        """Make the device ask its driver for gratuitous packets, as after a migration (5.1.6.5.4)."""
        _left_out("ask_for_announcement")


class Medium(Outside):
    """The medium of a disk (virtio 5.2)."""

    @property
    def size(self) -> int:
        """Bytes of the medium that the guest sees."""
        _left_out("size")

    def read(self, offset: int, length: int) -> bytes:
        """What is on the medium now."""
        _left_out("read: bytes of the medium")

    def write(self, offset: int, data: bytes) -> None:
        """Put *data* on the medium beside the device."""
        _left_out("write: bytes of the medium")

    def fail_next(self, err: int) -> None:
        """Let the next access of the device's to the medium fail with *err*."""
        _left_out("fail_next")

    def volatile(self) -> bool:
        """Whether anything that the device wrote would be lost if the host lost its power now."""
        _left_out("volatile: what a loss of power would cost")

    def resize(self, size: int) -> None:
        """Give the medium another size, so that the device hears of it."""
        _left_out("resize")

    @property
    def serial(self) -> bytes:
        """What GET_ID is to return."""
        _left_out("serial")


class Terminals(Outside):
    """Terminals, or other programs, at the ports of a console (virtio 5.3)."""

    def send(self, port: int, data: bytes) -> None:
        """Type *data* at *port*."""
        _left_out("send: input of a port")

    def received(self, port: int) -> bytes:
        """What came out of *port* since the last call."""
        _left_out("received: output of a port")

    def connect(self, port: int, connected: bool) -> None:
        """Open or close the host's side of *port*."""
        _left_out("connect: a port's host side that comes and goes")

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal of port 0 another size."""
        _left_out("resize")

    @property
    def names(self) -> Sequence[bytes]:
        """The ports' names, in order; their number is how many ports there are."""
        _left_out("names")


class HostSockets(Outside):
    """The host's end of a socket device (virtio 5.10)."""

    def listen(self, port: int) -> None:
        """Accept every stream that the guest opens to *port*."""
        _left_out("listen: a host port that accepts")

    def listen_seqpacket(self, port: int) -> None:
        """Accept every sequence of packets that the guest opens to *port*."""
        _left_out("listen_seqpacket")

    def send(self, port: int, data: bytes) -> None:
        """Send *data* to the guest on the connection that was accepted last at *port*; on a seqpacket one it is one
        message.
        """
        _left_out("send: bytes for the guest")

    def received(self, port: int) -> bytes:
        """What the guest sent on that connection since the last call."""
        _left_out("received: bytes of the guest")


class Person(Outside):
    """The person who uses an input device (virtio 5.8)."""

    def act(self, events: Sequence[tuple[int, int, int]]) -> None:
        """Cause one update of (type, code, value) events; the closing EV_SYN is the device's."""
        _left_out("act: events")

    @property
    def repertoire(self) -> Sequence[Sequence[tuple[int, int, int]]]:
        """Updates that ``act`` can cause, two at least; each another one, of one event or more."""
        _left_out("repertoire")

    def lights(self) -> Sequence[tuple[int, int, int]]:
        """(type, code, value) of what the driver put into the status queue since the last call."""
        _left_out("lights: status events")


class Wires(Outside):
    """Wires at the lines of a GPIO controller (virtio 5.18)."""

    def set_level(self, line: int, level: int) -> None:
        """Drive *line* from outside."""
        _left_out("set_level")

    def level(self, line: int) -> int | None:
        """What the controller drives *line* to; None while it does not drive it."""
        _left_out("level")


class I2cBus(Outside):
    """The bus behind an I2C adapter (virtio 5.16)."""

    @property
    def present(self) -> int:
        """7-bit address of a target that acknowledges, that can be written and read."""
        _left_out("present")

    @property
    def absent(self) -> int:
        """7-bit address that nobody acknowledges."""
        _left_out("absent")

    def transfers(self) -> Sequence[tuple[int, bool, bytes]]:
        """(7-bit address, whether it was a read, bytes) of each transfer on the bus since the last call, in order."""
        _left_out("transfers")


class Pressure(Outside):
    """The host that sets a balloon's target (virtio 5.5)."""

    def set_target(self, pages: int) -> None:
        """Ask for a balloon of *pages* of 4096 bytes."""
        _left_out("set_target")

    def ask_statistics(self) -> None:
        """Ask the driver for new statistics."""
        _left_out("ask_statistics")

    def statistics(self) -> dict[int, int]:
        """The last statistics: tag to value."""
        _left_out("statistics")


class Operation(Outside):
    """The operation of a PCI function that is no virtio device: what its driver does to make it interrupt and move
    data. *function* is the guest's view of it.
    """

    def interrupt(self, function: GuestFunction) -> None:
        """Make it interrupt once, by whatever is enabled."""
        _left_out("interrupt: a cause of interrupts")

    def acknowledge(self, function: GuestFunction) -> None:
        """Serve that interrupt, so that its cause is gone."""
        _left_out("acknowledge: an end of interrupts")

    def move(self, function: GuestFunction, gpa: int, length: int) -> None:
        """Make it write *length* bytes, none of them 0, into guest memory at *gpa*."""
        _left_out("move: data that it moves by itself")
