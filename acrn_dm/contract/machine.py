"""The machine as the hooks know it: what a plugin that adds options is called with, and what observers may use."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.types import Device


class OptionParser(Protocol):
    """The parser to which ``acrn_dm_add_options`` adds its options: the command line's, which reads the TOML keys of
    that name, too.

    ``MachineConfig.plugin_options`` has the values, and with it every ``DeviceContext`` and ``HypervisorOptions``.
    """

    def add_option(self, name: str, *, help: str, metavar: str | None = None, default: object = None) -> None:
        """Add ``--name METAVAR``, or without *metavar* a switch. The value is the text given, True for a switch, else
        *default* (False for a switch without one). Raises ValueError for a name that is malformed or taken.
        """


@runtime_checkable
class ObservedMachine(Protocol):
    """The machine that observers are told of, on the main thread: what is here is for that thread, too."""

    @property
    def config(self) -> MachineConfig:
        """What the user asked for."""

    @property
    def functions(self) -> Sequence[Device]:
        """The PCI functions by bus, slot and function; a virtio device is the ``device`` of its own."""

    def press_power_button(self) -> None:
        """Ask the guest to power off; the second time, or after the time-out, it is forced."""
