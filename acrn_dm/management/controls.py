"""The machine as its managers see it; and the text they name a medium by."""

import enum
from collections.abc import Callable

from acrn_dm.base.records import frozen
from acrn_dm.contract.types import Bdf
from acrn_dm.pci.place import parse_bdf


class PowerState(enum.IntEnum):
    """The answer to DM_QUERY: the original's numbers of its suspend modes."""

    RUNNING = 0
    SYSTEM_RESET = 1
    FULL_RESET = 2
    POWEROFF = 3
    SUSPENDED = 4


class StopReason(enum.Enum):
    """The reason why the vCPUs stopped."""

    POWEROFF = "poweroff"
    RESET = "reset"
    SUSPEND = "suspend"
    DEBUG_EXIT = "debug-exit"
    FORCED = "forced off"
    ERROR = "error"


def power_state(reason: StopReason | None, *, paused: bool) -> PowerState:
    """What a machine tells that stops because of *reason*, if any, and sleeps or stands still (*paused*), or not.

    acrnctl says "paused" of both, and offers to resume.
    """
    if paused:
        return PowerState.SUSPENDED
    if reason is None:
        return PowerState.RUNNING
    return PowerState.SYSTEM_RESET if reason is StopReason.RESET else PowerState.POWEROFF


@frozen(kw_only=True)
class Controls:
    """The handles of the machine. All are called on the main loop's thread."""

    state: Callable[[], PowerState]
    press_power_button: Callable[[], None]  # the guest decides; pressing again changes nothing
    power_off: Callable[[str], None]  # at once; the text says who wanted it
    insert_medium: Callable[[Bdf, str], None]  # into an empty slot; raises AcrnDmError
    set_limits: Callable[[Bdf, str], None]  # of a disk, by its options; raises AcrnDmError
    set_link: Callable[[Bdf, bool], None]  # of a network card, up or down; raises AcrnDmError
    command_driver: Callable[[Bdf, str], None]  # a text for the driver of a device (driver=NAME); raises AcrnDmError
    resume: Callable[
        [], bool
    ]  # leave S3, or go on after a pause; False when the guest does neither sleep nor stand still


def parse_rescan(text: str) -> tuple[Bdf, str]:
    """Read ``SLOT,PATH[,OPTIONS]``, SLOT being slot, slot:func or bus:slot:func. Raises ValueError."""
    place, comma, medium = text.partition(",")
    if not comma or not medium:
        raise ValueError("expected SLOT,PATH[,OPTIONS]")
    return parse_bdf(place, ":"), medium


def parse_limits(text: str) -> tuple[Bdf, str]:
    """Read ``SLOT[,OPTION=N...]``, SLOT as in ``parse_rescan``. Raises ValueError."""
    place, _, limits = text.partition(",")
    return parse_bdf(place, ":"), limits


def parse_link(text: str) -> tuple[Bdf, bool]:
    """Read ``SLOT,on|off``, SLOT as in ``parse_rescan``. Raises ValueError."""
    place, _, word = text.partition(",")
    if word not in ("on", "off"):
        raise ValueError("expected SLOT,on|off")
    return parse_bdf(place, ":"), word == "on"
