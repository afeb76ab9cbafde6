"""Work of a device's own on an I/O loop: watched files and guarded callbacks.

Work of a device's own may pop chains at any time: whoever called ``handle_queue`` last has asked for a kick at what
comes after.
"""

import select
from collections.abc import Callable

import attrs

from acrn_dm.base.errors import GuestError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.virtio.device import VirtioDevice


def guarded(device: VirtioDevice, work: Callable[[], object]) -> Callable[[], None]:
    """Wrap *work* for a loop: a GuestError in it makes *device* ask its driver for a reset."""

    def run() -> None:
        try:
            work()
        except GuestError as e:
            device.fail(e.with_traceback(None))  # whose frames may refer to guest memory

    return run


def poll(fd: int, wanted: int = select.POLLIN) -> int:
    """What *fd* is ready for at the moment, of *wanted*; POLLHUP and POLLERR come unasked."""
    poller = select.poll()
    poller.register(fd, wanted)
    return sum(events for _, events in poller.poll(0))


@define(eq=False)
class FdWatch:
    """The registration of *fd* with *loop* for what is wanted at the moment; there is none while that is nothing.

    Unregistered, because epoll reports a hang-up even to those who want no event, again and again. ``want`` is called
    on the loop's thread, ``close`` from any.
    """

    loop: IoLoop
    fd: int
    callback: Callable[[], object]
    _events: int = attrs.field(default=0, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def want(self, events: int) -> None:
        """Watch for *events* (``ioloop.READ | ioloop.WRITE``); 0 for nothing. Nothing after ``close``."""
        if events == self._events or self._closed:
            return
        if not self._events:
            self.loop.add(self.fd, self.callback, events=events)
        elif not events:
            self.loop.remove(self.fd)
        else:
            self.loop.modify(self.fd, events)
        self._events = events

    def close(self) -> None:
        """Forget the file; when this returns the callback neither runs (unless we are in it) nor will."""
        self._closed = True
        self.loop.barrier()  # a callback that runs now may be about to ask for more; later ones see the flag
        if self._events:
            self._events = 0
            self.loop.remove(self.fd)
