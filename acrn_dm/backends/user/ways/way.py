"""The way of one device's requests to its back-end, and what is known of them when that ends.

Direct: the back-end has the driver's rings and eventfds, and either takes notes of what is in flight, or the used index
says it. Watched: it has them, too, takes no notes, and somebody looks on (``watch``). Relayed: it has shadow rings
(``relay``); so is whoever comes after one that was watched and has left requests out of order, and a ring that can't be
watched.
"""

from collections.abc import Callable

from acrn_dm.backends.user import plan as user_plan
from acrn_dm.backends.user.inflight import InflightSlot
from acrn_dm.backends.user.talk import Peer, Plan
from acrn_dm.backends.user.terms import AfterLoss, Terms
from acrn_dm.backends.user.ways.relay import Left, Relay
from acrn_dm.backends.user.ways.shadow import ShadowArea
from acrn_dm.backends.user.ways.watch import LEAST_SIZE, Watch
from acrn_dm.backends.wire.message import PeerError, ProtocolFeature
from acrn_dm.base.errors import ConfigError, GuestError, HostError
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio.backend import Session
from acrn_dm.virtio.device import VirtioDevice

UNSEEN = "more requests passed at once than could be watched, and some are in flight"


class Way:
    """The way of *device* on *terms*. *failed* is called on an I/O loop's thread when a relay gets nonsense. All else
    is under the ``ConversationLock``. Raises ConfigError for an option that means nothing.
    """

    def __init__(self, device: VirtioDevice, terms: Terms, failed: Callable[[Relay, HostError], None]) -> None:
        if device.context.vhost_relay and terms.after_loss is not AfterLoss.KEEP:
            raise ConfigError("relay=on is for disks: nothing else is done again", option=device.name)
        self._device = device
        self._terms = terms
        self._failed = failed
        self._inflight = InflightSlot(len(device.queue_sizes), max(device.queue_sizes))
        self._session: Session | None = None
        self._handed_over = False  # some back-end has used the session's rings
        self._relay: Relay | None = None
        self._relay_owes: bool | None = None  # that of the last session, which ended with requests that nobody finished
        self._watch: Watch | None = None
        self._area: ShadowArea | None = None  # the connection's

    @property
    def relayed(self) -> bool:
        """Whether the driver's rings are served here."""
        return self._relay is not None

    @property
    def watched(self) -> bool:
        """Whether somebody looks on, or did until the back-end's end."""
        return self._watch is not None

    def is_of(self, relay: Relay) -> bool:
        """Whether *relay* is the way at the moment."""
        return relay is self._relay

    def begin(self, session: Session, peer: Peer | None) -> None:
        """A driver came; *peer* is there, or nobody is: then what can't wait in its rings is taken here. Raises
        GuestError.
        """
        self._session, self._handed_over, self._relay_owes = session, False, None
        if not session.resumed:  # of an earlier driver's rings, which these are not
            self._inflight.forget()
        if self._needs_relay(session, peer):
            self._relay_from(session, {})

    def plan(self, session: Session, peer: Peer) -> Plan:
        """What is told *peer* of the rings. Raises PeerError where it can't go on with what another has left, HostError
        where the host lacks something.
        """
        try:
            return self._plan(session, peer)
        except GuestError as e:
            raise PeerError(f"the rings can't be gone on with: {e}") from e

    def _plan(self, session: Session, peer: Peer) -> Plan:
        if self._handed_over and self._relay is None:
            self._take_over(session, peer)
        if self._relay is not None and not self._handed_over and not self._needs_relay(session, peer):
            self._relay.end(-1, 0.0)  # it has only waited: the driver's rings are where they were
            self._relay = None
        if self._area is None and (self._relay is not None or self._needs_help(session, peer)):
            self._area = ShadowArea(self._device.queue_sizes)
        if self._relay is not None and self._area is not None:
            self._relay.connect(self._area)
            return user_plan.make_relay_plan(session, self._area)
        if self._needs_help(session, peer) and self._can_watch(session):
            self._look_on(session)
        return user_plan.make_plan(session, self._area, used_before=self._handed_over)

    def slot(self, session: Session) -> InflightSlot | None:
        """Where the region is kept in which the back-end takes notes, if it can; None where they are of no use."""
        return self._inflight if self._keeps(session) and self._relay is None else None

    def hand_over(self) -> None:
        """The back-end may use the rings from now on."""
        self._handed_over = True
        if self._watch is not None and not self._watch.looks:  # at what the last one did, which is told by now
            self._look_no_more()

    def notify(self, session: Session) -> None:
        """Work may wait for which nobody kicks any more, and answers of which nobody told the driver."""
        if self._relay is not None:
            self._relay.notify()
            return
        for queue in session.queues:
            queue.kick.signal()
            queue.call.signal()

    def lost(self, error: HostError) -> HostError | None:
        """The back-end is gone, by *error*. Returns why no other can go on, None where one can."""
        self._forget_area()
        if self._watch is not None:
            self._watch.stop()
            self._watch.look()
        if self._session is None:
            self._inflight.forget()
            return None
        if not self._handed_over:
            return None
        if self._watch is not None:
            return None if self._watch.sure else HostError(f"{error}; {UNSEEN}")
        return error if self._inflight.region is None and self._terms.after_loss is AfterLoss.RESET else None

    def end(self, alive_fd: int, seconds: float) -> dict[int, RingPosition]:
        """The driver goes; returns where relayed rings are, when the back-end at the connection *alive_fd* (-1: none)
        has finished what it has. Nobody looks at rings any more. Raises PeerError if it does not finish within
        *seconds*. Idempotent.
        """
        relay, self._relay, self._session = self._relay, None, None
        self._look_no_more()
        if relay is None:
            return {}
        try:
            return relay.end(alive_fd, seconds)
        finally:
            self._relay_owes = relay.owing

    def owes(self, session: Session) -> bool:
        """After ``end``, with nobody to finish what is in flight: whether that is anything."""
        self._inflight.forget()
        if self._relay_owes is not None:
            return self._relay_owes
        return user_plan.owes(session, self._terms, handed_over=self._handed_over)

    def close(self) -> None:
        """Give everything back."""
        self._inflight.forget()
        self._look_no_more()
        self._forget_area()

    def _keeps(self, session: Session) -> bool:
        """Whether notes, a watch or a relay are needed to go on after the end of a back-end, and are of use."""
        return self._terms.tracked or (self._terms.keeps_packed and not user_plan.tells_used(session))

    def _needs_help(self, session: Session, peer: Peer | None) -> bool:
        """Whether requests have to be known here: the back-end takes no notes, or there is none yet."""
        helps = self._terms.after_loss is not AfterLoss.RESET and self._keeps(session)
        return helps and (peer is None or not _takes_notes(peer))

    def _needs_relay(self, session: Session, peer: Peer | None) -> bool:
        return self._needs_help(session, peer) and not self._can_watch(session)

    def _can_watch(self, session: Session) -> bool:
        large = all(queue.size >= LEAST_SIZE for queue in session.queues)
        return large and user_plan.tells_used(session) and not self._device.context.vhost_relay

    def _take_over(self, session: Session, peer: Peer) -> None:
        """Find out what the last back-end has left in flight. Raises PeerError."""
        watch = self._watch
        if watch is None:
            notes = _takes_notes(peer) and self._inflight.region is not None
            user_plan.check_resumable(session, self._terms, takes_notes=notes)
            return
        watch.look()
        if not watch.sure:
            raise PeerError(UNSEEN)
        if not watch.in_order:
            self._relay_from(session, watch.left())
            self._look_no_more()

    def _relay_from(self, session: Session, left: dict[int, Left]) -> None:
        self._relay = Relay(self._device, self._failed, finishes=self._terms.tracked)
        self._relay.begin(session, left)

    def _look_on(self, session: Session) -> None:
        """Before the back-end has them."""
        positions = {queue.index: queue.position for queue in session.queues}
        if self._handed_over:
            positions |= user_plan.used_positions(session)
        before, self._watch = self._watch, Watch(session, positions)
        if before is not None:
            before.close()

    def _look_no_more(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _forget_area(self) -> None:
        area, self._area = self._area, None
        if self._relay is not None:
            self._relay.disconnect()
        if area is not None:
            area.close()


def _takes_notes(peer: Peer) -> bool:
    return bool(peer.protocol & ProtocolFeature.INFLIGHT_SHMFD)
