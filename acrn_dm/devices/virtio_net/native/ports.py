"""The choice of who moves a card's frames: C, where a file's frames are read and written as those of a tap are."""

from typing import Protocol, runtime_checkable

from acrn_dm.devices.virtio_net.backend import PacketFile
from acrn_dm.devices.virtio_net.native._port import PacketPort


@runtime_checkable
class HasPort(Protocol):
    """A packet file with a way of its own in C."""

    def port(self) -> PacketPort:
        """What moves its frames, one and the same each time."""


def port_of(file: PacketFile) -> PacketPort | None:
    """What moves the frames of *file* in C; None where it does so in Python, in its own way."""
    if isinstance(file, HasPort):
        return file.port()
    plain = type(file).read is PacketFile.read and type(file).write is PacketFile.write
    return PacketPort(file.fd, file.vnet_header) if plain else None
