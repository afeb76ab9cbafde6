"""The device status field as a pure function (spec 2.1, 3.1).

Choices where the specification leaves the device's reaction open, all in favour of harmless firmware:

* A write never clears a bit; bits it leaves out stay set. Only 0 clears, and it is the reset.
* ACKNOWLEDGE, DRIVER and FAILED are stored as written, in any order: nothing depends on them but DRIVER_OK below.
* FEATURES_OK is stored if the features are acceptable at the moment it is first written, and then stays until reset;
  the same write may carry other bits. A legacy driver doesn't know it: written through the legacy registers it is
  ignored.
* DRIVER_OK is stored only where the device can go: with FEATURES_OK (the legacy interface: without), and not once the
  device asked for a reset or the driver gave up (FAILED); until the reset the write leaves it clear.
* DEVICE_NEEDS_RESET belongs to the device; a driver's write neither sets nor clears it. Unknown bits read as 0.
"""

from collections.abc import Callable

from acrn_dm.virtio.defs import Status

# Plain numbers: an operation on flags of an enumeration takes as long as all of the rest.
SIMPLE = int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FAILED)
DEAD = int(Status.NEEDS_RESET | Status.FAILED)
FEATURES_OK, DRIVER_OK = int(Status.FEATURES_OK), int(Status.DRIVER_OK)


def next_status(current: int, written: int, *, features_ok: Callable[[], bool], legacy: bool = False) -> int:
    """Return the status after the driver wrote *written* while it was *current*.

    *features_ok* is asked at most once, and only when FEATURES_OK would become set. *legacy* tells through which
    registers the write came.
    """
    if written == 0:
        return 0
    status = current | (written & SIMPLE)
    if written & FEATURES_OK and not current & FEATURES_OK and not legacy and features_ok():
        status |= FEATURES_OK
    ready = legacy or status & FEATURES_OK
    if written & DRIVER_OK and ready and not status & DEAD:
        status |= DRIVER_OK
    return status
