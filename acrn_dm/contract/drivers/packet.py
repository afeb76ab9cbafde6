"""Packet drivers: what carries a card's frames, by descriptors of the host's or in Python.

A frame is Ethernet's, without its checksum. Where a driver has ``offloads``, a packet header stands before each, both
ways: struct virtio_net_hdr (virtio 5.1.6), of as many bytes as ``configure`` says.
"""

import os
from collections.abc import Sequence
from typing import Protocol

from acrn_dm.base.files.claims import Claim
from acrn_dm.base.records import define


@define(eq=False)
class PacketFile:
    """A non-blocking descriptor that moves one frame per read or write, after a packet header if *vnet_header*."""

    fd: int
    vnet_header: bool

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        """Set the header's length and what frames for the guest may need: feature bits GUEST_*. A tap has one setting
        for the whole interface, a macvtap a header length for each descriptor: every one is told. Raises HostError.
        """

    def attach(self, attached: bool) -> None:
        """Whether the interface may hand frames to this descriptor. Raises HostError."""

    def read(self, buffer: memoryview) -> int | None:
        """Read a frame into *buffer*; None when none waits. Raises OSError when the interface is gone."""
        try:
            return os.readv(self.fd, (buffer,))
        except BlockingIOError:
            return None

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Write a frame; False when the interface takes no more now. Raises OSError when it refuses this frame."""
        try:
            os.writev(self.fd, parts)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class PacketPort(Protocol):
    """The card as its driver sees it. Every method may be called from any thread, from ``open`` to ``close``."""

    def receive(self, frame: bytes | memoryview, *, pair: int = 0) -> bool:
        """Hand *frame*, with its packet header if there are any, to the guest by queue pair *pair* (of those in use).
        False where the card takes no more at the moment: it is full, and the frame is the caller's to keep or drop.
        """

    def wait(self, seconds: float, *, pair: int = 0) -> bool:
        """Wait until the card takes a frame again; false if that takes longer, or the card is closed."""

    def link(self, up: bool) -> None:
        """Tell the guest whether there is a link."""


class PacketDriver:
    """A carrier of one card's frames: override ``send``, and keep the port that ``open`` gets.

    **Threads.** ``send`` is called on a thread of the card's for each queue pair, a frame at a time. It may block: then
    frames wait in the guest's ring, and the guest learns that by its own full queue.

    **Errors.** An OSError drops the frame; the card counts it. Whatever else is raised is a fault of the driver: one
    line in the log, and the link is down.
    """

    offloads: int = 0  # what frames may need, both ways: feature bits of virtio 5.1.3; 0: no packet headers either

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        return []

    def claims(self) -> Sequence[Claim]:
        """What it will use of the host that only one can have. Asked before anything is open."""
        return ()

    def files(self, pairs: int) -> Sequence[PacketFile] | None:
        """Descriptors that frames go through without Python, one for each of *pairs* queue pairs; None, the default,
        for a driver in Python. Asked instead of ``open``. Raises ConfigError, HostError or OSError.
        """
        return None

    def open(self, port: PacketPort, pairs: int) -> None:
        """Begin: the card has *pairs* queue pairs. Raises ConfigError, HostError or OSError."""

    def send(self, frame: bytes, pair: int) -> None:
        """Carry *frame*, which the guest sent by queue pair *pair*."""
        raise NotImplementedError

    def configure(self, *, header_bytes: int, offloads: int) -> None:
        """What the guest's driver has negotiated: bytes of the packet headers, both ways, and what frames for it may
        need (feature bits GUEST_*). Once for each queue pair, and only with ``offloads``.
        """

    def control(self, text: str) -> None:
        """Do what somebody says while the machine runs: the command monitor's ``driver``. Any thread. Raises ValueError
        for what it does not understand.
        """
        raise ValueError("this driver takes no commands")

    def close(self) -> None:
        """End, also when ``open`` has failed half-way: ``send`` does not run and is not called any more. Idempotent."""
