"""Resources: what the machine gives a device when it becomes real: memory, buses, interrupts, loops. Devices open
nothing global.
"""

from collections.abc import Callable

from acrn_dm.base.bus import Bus
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.irq import EventFdRegistry, InterruptSink
from acrn_dm.base.records import frozen
from acrn_dm.memory.guest_memory import GuestMemory, MemoryRegion


@frozen(kw_only=True, eq=False)
class HostFault:
    """A failure of the host that somebody may mend while the guest stands still: a full disk, a lost cable."""

    device: str  # the instance's name
    operation: str  # in one word
    err: int  # the errno
    resumed: Callable[[], object]  # called on the main loop when the guest is about to go on: try again


def _nobody_resumes(fault: HostFault) -> bool:
    return False


def _no_place_for_memory(fd: int, size: int) -> int:
    raise HostError("memory can't be added to this guest")


def _no_windows(region: MemoryRegion, there: bool) -> None:
    raise HostError("registers can't be memory in this guest")


@frozen(kw_only=True, eq=False)
class Resources:
    """The machine as a device sees it: handed to ``realize``, lives as long as the machine."""

    memory: GuestMemory
    pio: Bus
    mmio: Bus
    interrupts: InterruptSink
    eventfds: EventFdRegistry
    main_loop: IoLoop  # control: timers, signals, error reports
    io_loop: Callable[[str], IoLoop]  # data: the loop of that name, made and started on first use; "io" is shared
    device_failed: Callable[[object, Exception], None]  # tells observers; never raises
    # Maps so many bytes, a multiple of 2 MiB, of a file (its descriptor) into the guest, beside RAM, for as long as the
    # machine lives, and returns their gpa. For ``realize`` only; raises HostError. The descriptor may be closed then;
    # the file must not become shorter. Devices and back-ends reach it as they do RAM; a reboot leaves it as it is.
    add_memory: Callable[[int, int], int] = _no_place_for_memory
    # Whether the guest finds a file, a region at some gpa, in the place of the registers that answer there, from now on
    # until that is taken back: then it reaches it by itself, and nobody hears of it. Raises HostError; registers answer
    # then. Any thread.
    window: Callable[[MemoryRegion, bool], None] = _no_windows
    # Whether the guest is to be off before it has begun: whoever waits in ``realize`` ends then.
    off_wanted: Callable[[], bool] = lambda: False
    quit: Callable[[], None] = lambda: None  # whoever sits at this process's terminal wants the guest off; any thread
    # Stops the vCPUs until somebody lets them go on; False where nobody could: then the guest has to be told. Any
    # thread.
    pause_guest: Callable[[HostFault], bool] = _nobody_resumes
    pause_s: float = 10.0  # what a device may take to finish what is in flight before its rings are somebody else's
    clock: Clock = REAL  # the one to ask for the time; that of the loops, so that a test can move both
