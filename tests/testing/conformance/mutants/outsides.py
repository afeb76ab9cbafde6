"""The built-in devices with a world around them, as the suite has it, and a class of a device in place of theirs."""

from typing import Any

import attrs

from acrn_dm import DeviceContext
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_blk.device import BlkDevice
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_console.device import ConsoleDevice
from acrn_dm.devices.virtio_net.device import NetDevice
from acrn_dm.testing import SimMachine
from acrn_dm.testing.conformance.outside.image import ImageMedium
from acrn_dm.testing.conformance.outside.sockets import SocketTerminals
from acrn_dm.testing.conformance.outside.tap import TapNetwork


class _Replaced:
    """A machine that makes another device than the one it is asked for."""

    def __init__(self, machine: SimMachine, make: Any) -> None:
        self._machine = machine
        self._make = make

    def add(self, what: object, text: str = "", *, slot: int) -> Any:
        """Add ours."""
        return self._machine.add(lambda context: self._make(text, what, context), slot=slot)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)


class Disk(ImageMedium):
    """A disk of the class *made*, with several queues where the options say so."""

    def __init__(self, made: type | None, options: str, *, empty: bool = False) -> None:
        super().__init__(options, empty=empty)
        self._made = made or BlkDevice

    def build(self, machine: SimMachine) -> Any:
        """Into its slot."""
        return super().build(_Replaced(machine, self._make))  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        """Options before the path have its name in braces."""
        return self.options.format(image=self.path) if "{image}" in self.options else super().text

    def _make(self, text: str, what: object, context: DeviceContext) -> Any:
        text = text if self._empty else f"{text},share=on"
        return self._made(BlkConfig.from_string(text), attrs.evolve(context, vcpus=2, text=text))


class Card(TapNetwork):
    """A card of the class *made*."""

    def __init__(self, made: type | None, options: str) -> None:
        super().__init__(options, made=made or NetDevice)


class Terminals(SocketTerminals):
    """A console of the class *made*."""

    def __init__(self, made: type | None) -> None:
        super().__init__()
        self._made = made or ConsoleDevice

    def build(self, machine: SimMachine) -> Any:
        """Into its slot."""
        return super().build(_Replaced(machine, self._make))  # type: ignore[arg-type]

    def _make(self, text: str, what: object, context: DeviceContext) -> Any:
        return self._made(ConsoleConfig.from_string(text), context)
