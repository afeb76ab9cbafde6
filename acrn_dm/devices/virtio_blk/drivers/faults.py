"""The faults of a block driver, as answers to the guest: told once, and never a reason for trying again."""

import errno

import attrs

from acrn_dm.base.records import define
from acrn_dm.contract.plugins.guard import told
from acrn_dm.devices.virtio_blk.image.trust import LostError


class DriverError(LostError):
    """A fault of the driver; its text is empty where it has been told already."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EIO, text)

    def __str__(self) -> str:
        return str(self.args[1])


@define(eq=False)
class Blame:
    """The faults of one driver; *who* is what a line about one begins with."""

    who: str
    _told: bool = attrs.field(default=False, init=False)

    def error(self, fault: BaseException | str) -> DriverError:
        """The error for *fault*, with its text the first time."""
        if self._told:
            return DriverError("")
        self._told = True
        text = fault if isinstance(fault, str) else told(fault)
        return DriverError(f"{self.who}: {text}; its faults are IOERR to the guest, and not logged any more")
