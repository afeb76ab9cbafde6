"""A watch: the driver's split rings are the back-end's, which takes no notes, and a thread of ours looks at them.

It stands in nobody's way, and costs next to no time (``native._sampler``). It comes before other threads, if the host
lets it; where this process has given up its rights the broker does that. What it knows is complete when the process
has ended, for then nobody but the driver writes the rings: a last look tells what is in flight. Where more has passed
between two looks than could be seen it is *unsure* for some looks; a process that ends just then leaves what nobody can
do again.
"""

import logging
import threading
from collections.abc import Mapping

from acrn_dm.backends.broker import present
from acrn_dm.backends.user.native._sampler import Sampler
from acrn_dm.backends.user.ways.relay import Left
from acrn_dm.base.errors import HostError
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.ring.ring import Tally
from acrn_dm.virtio.backend import Session

log = logging.getLogger(__name__)

LEAST_SIZE = 32  # of a ring: three quarters of it are not to pass between two looks, which are at least 0.1 ms apart


class Watch:
    """The watch of the rings of *session*, each from its place in *positions* on. Raises GuestError for rings outside
    RAM, HostError where no thread can be had.
    """

    def __init__(self, session: Session, positions: Mapping[int, RingPosition]) -> None:
        memory, form = session.resources.memory.map, ring_format(session.features)
        self._thread: threading.Thread | None = None
        self._tallies: dict[int, Tally] = {}
        for queue in session.queues:
            tally = form.tally(session.features, memory, queue.layout, positions[queue.index])
            assert tally is not None
            self._tallies[queue.index] = tally
        try:
            self._sampler = Sampler([(self._tallies[queue.index], queue.kick.fd) for queue in session.queues])
            thread = threading.Thread(target=self._sampler.run, name="watch", daemon=True)
            thread.start()
        except OSError as e:
            self.close()
            raise HostError.from_os("watching rings", e) from e
        except RuntimeError as e:  # no thread
            self.close()
            raise HostError(f"watching rings: {e}") from e
        self._thread = thread
        _have_first(thread)

    def stop(self) -> None:
        """The back-end is gone: look for the last time. When this returns no thread does any more. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._sampler.stop()
            thread.join()
            self._sampler.close()

    @property
    def looks(self) -> bool:
        """Until it is stopped."""
        return self._thread is not None

    def look(self) -> None:
        """See what the driver has added since it was stopped."""
        for tally in self._tallies.values():
            tally.sample()

    @property
    def sure(self) -> bool:
        """Whether it is known what is in flight, in all rings."""
        return all(tally.sure for tally in self._tallies.values())

    @property
    def in_order(self) -> bool:
        """Whether the used index of each ring says what is in flight: all behind it."""
        return all(tally.in_order() for tally in self._tallies.values())

    def left(self) -> dict[int, Left]:
        """What is in flight, by queue. Only while ``sure``."""
        return {i: Left(count=len(tally.in_flight()), notes=tally.notes()) for i, tally in self._tallies.items()}

    def close(self) -> None:
        """Nothing more is asked. Idempotent."""
        self.stop()
        tallies, self._tallies = self._tallies, {}
        for tally in tallies.values():
            tally.close()


def _have_first(thread: threading.Thread) -> None:
    broker = present()
    if broker is None or thread.native_id is None:
        return
    try:
        broker.come_first(thread.native_id)
    except HostError as e:
        log.info("rings are looked at as the host has time: %s", e)
