"""The vhost-user backend: another process moves a device's data (``vhost-user=SOCKET``).

One connection lasts as long as the process behind it, over any number of drivers. When it ends by itself, the device
pauses: its driver's requests wait in the rings, and a new process is looked for, at first soon, then less often. What
the old one had in flight the new one does again: for disks and in packed rings from the region of INFLIGHT_SHMFD, in
which the old one took notes, or as it is known here if it takes none (``ways``); elsewhere from the used index on. A
back-end that breaks the protocol, refuses something or keeps silent is not tried again before the driver has reset the
device, which it is asked to.

Threads: everything happens under one lock (``ConversationLock``), on control threads or on the main loop.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import attrs

from acrn_dm.backends.door import Door, door_of, wait_at
from acrn_dm.backends.proxy import Proxy
from acrn_dm.backends.user import one_ring
from acrn_dm.backends.user import plan as user_plan
from acrn_dm.backends.user import talk as user_talk
from acrn_dm.backends.user.backoff import Backoff
from acrn_dm.backends.user.conversation_lock import ConversationLock
from acrn_dm.backends.user.enable import RingSwitches, wanted_queues
from acrn_dm.backends.user.exchange import Talk
from acrn_dm.backends.user.link import ONCE, TIME_LIMIT_S, Link
from acrn_dm.backends.user.talk import NO_FEATURES, Peer, Wishes
from acrn_dm.backends.user.terms import Terms, terms_of
from acrn_dm.backends.user.ways.relay import Relay
from acrn_dm.backends.user.ways.way import Way
from acrn_dm.backends.wire.message import BackendRequest, Message, PeerError, ProtocolFeature
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import Timer
from acrn_dm.contract.resources import Resources
from acrn_dm.pci.eventfds import make_eventfd
from acrn_dm.ring.factory import ring_format
from acrn_dm.ring.position import RingPosition
from acrn_dm.virtio import features
from acrn_dm.virtio.backend import Session, SessionQueue
from acrn_dm.virtio.device import VirtioDevice

log = logging.getLogger(__name__)

T = TypeVar("T")

CONFIG_DELAY_S = 0.1  # a back-end may announce changes as fast as it likes; they are fetched this often


class VhostUser(Proxy):
    """The backend of one device in another process, which is reached through *door*; by default a socket. *terms* are
    the device's unless there are others.
    """

    stop_resets: ClassVar[bool] = True  # what the driver said through queues is known here, or said again

    def __init__(self, device: VirtioDevice, door: Door | None = None, terms: Terms | None = None) -> None:
        super().__init__(device)
        self.door = door or door_of(device)
        self._terms = terms or terms_of(device)
        self.packed_by_default = self._terms.keeps_packed
        self._peer = Peer(features=0)
        self._session: Session | None = None
        self._running = False  # the connected back-end uses its rings
        self._way = Way(device, self._terms, self._bad_answer)
        self._owing = False  # the last session ended with requests that nobody finished
        self._config = b""
        self._written: dict[int, bytes] = {}  # offset -> what the driver wrote there and a new back-end has to know
        self._doomed = False  # the session's rings are of no use any more: its driver is asked for a reset
        self._config_timer: Timer | None = None
        self._err_fd = -1  # SET_VRING_ERR's; there is none until rings are to be started
        self._closed = True

    # Backend and Proxy: control threads.

    def check(self) -> list[str]:
        """Whether there is a socket; whether somebody serves it only connecting would show."""
        why = self.door.problem()
        return [] if why is None else [why]

    def realize(self, resources: Resources) -> None:
        """Connect and get acquainted; what is offered to drivers depends on it. Raises HostError."""
        self._conversations = ConversationLock(resources.main_loop)
        self._link = Link(self._conversations, self._lost, self._notice)
        self._switches = RingSwitches(self._link, wanted_queues(self.device))
        self._backoff = Backoff(self._conversations, self._reconnect)
        self._closed = False
        with self._conversations.hold():
            try:
                wait_at(self.door, self._meet, resources.off_wanted, self.device.name)
            except HostError as e:
                raise self._described(self.door.lost(e)) from e

    def _meet(self) -> None:
        """Connect and get acquainted. Main thread. Raises HostError; then nothing is left of the connection."""
        try:
            self._link.connect(self.door.connect())
            self._link.run(self._greet())
        except HostError:
            self._link.close()
            raise

    def offer(self, offered: int) -> int:
        """See ``terms``."""
        return self._terms.offer(offered, self._peer.features, len(self.device.queue_sizes))

    def read_config(self, offset: int, size: int) -> bytes:
        """The back-end's, as it was told last; for a network device its own."""
        return self._config[offset : offset + size] if self._terms.remote_config else super().read_config(offset, size)

    def write_config(self, offset: int, data: bytes) -> None:
        """Pass on the one field that a driver may write; while nobody is there only what has to be kept."""
        field = self._terms.writable
        if field is None or not self._peer.features & field.feature:
            return
        if not (data := field.cut(offset, data)):
            return
        with self._conversations.hold():
            self._link.settle()
            if field.kept:
                self._written[field.offset] = data
                self._config = self._config[: field.offset] + data + self._config[field.offset + len(data) :]
            if self._link.connected:
                self._converse(user_talk.set_config(self._peer, field.offset, data))

    def write_legacy_config(self, offset: int, data: bytes) -> None:
        """Where it is not the other process's configuration, the device's."""
        if self._terms.remote_config:
            self.write_config(offset, data)
        else:
            super().write_legacy_config(offset, data)

    def remote_queues(self, features: int) -> list[int]:
        """Without those that do not exist for the driver: it may enable them, the back-end need not serve them."""
        there = self._terms.queues_there(len(self.device.queue_sizes), features, self._config)
        return [index for index in super().remote_queues(features) if index < there]

    def start_remote(self, session: Session) -> None:
        """If there is no back-end now, the next one gets the rings. Raises HostError."""
        user_plan.check(session)
        session = attrs.evolve(session, features=self._terms.told(session.features))
        owing, self._owing = self._owing, False
        start = ring_format(session.features).start
        begun = any(queue.position != start for queue in session.queues) or not user_plan.tells_used(session)
        if owing and begun and session.resumed:  # the same driver goes on
            raise HostError("requests were in flight when the machine paused, and no back-end was there to finish them")
        with self._conversations.hold():
            self._link.settle()
            self._session = session
            self._way.begin(session, self._peer if self._link.connected else None)
            if not self._link.connected and not self._backoff.pending:
                self._connect_anew()
            if self._link.connected:
                self._converse(self._start(session))

    def queues_changed(self, done: Callable[[], None]) -> None:
        """Any thread: the main loop tells the back-end."""
        self._conversations.loop.call_soon(
            lambda: self._conversations.run_on_loop(lambda: self._switches.changed(done))
        )

    def reset_remote(self, index: int) -> bool:
        """Alone, but for disks: notes of what is in flight are for all of their rings."""
        if self._terms.tracked or self._way.relayed or self._session is None:
            return False
        with self._conversations.hold():
            self._link.settle()
            self._session = one_ring.without(self._session, index)
            if self._running:
                self._converse(one_ring.take_back(self._peer, self._switches, index))
        return True

    def enable_remote(self, session: Session, queue: SessionQueue) -> bool:
        """If there is no back-end now, the next one gets the ring with the others."""
        if self._terms.tracked or self._way.relayed or self._session is None:
            return False
        with self._conversations.hold():
            self._link.settle()
            ours = self._session = one_ring.joined(self._session, queue)
            if self._running:
                self._converse(one_ring.give(self._peer, self._switches, ours, queue, self._err_fd))
        return True

    def stop_remote(self) -> Mapping[int, RingPosition]:
        """Without a back-end the rings are where their used index says."""
        session = self._session
        if session is None:
            return {}
        said = ring_format(session.features).position_said
        positions = {queue.index: queue.position for queue in session.queues} | user_plan.used_positions(session)
        with self._conversations.hold():
            self._link.settle()
            running, self._running, self._session, self._doomed = self._running, False, None, False
            self._switches.forget()
            relayed = self._way.relayed
            if self._terms.tracked:
                positions |= self._end_way(running)
            if running and self._link.connected:
                told = self._converse(user_talk.stop(self._peer, tuple(positions), said, reset=self.stop_resets))
                positions |= told if told is not None and not relayed else {}
            positions |= self._end_way(running)  # others may keep what they have for ever: buffers for what arrives
            if not running or not self._link.connected:  # nobody finished what is in flight
                self._owing = self._way.owes(session)
            self._written.clear()
        return positions

    def _end_way(self, running: bool) -> Mapping[int, RingPosition]:
        """Where relayed rings are; nothing where there are none, or none any more."""
        try:
            return self._way.end(self._link.fd if running else -1, TIME_LIMIT_S)
        except HostError as e:
            self._give_up(e)
        return {}

    def close(self) -> None:
        """Close the connection and stop looking for another."""
        if self._closed:
            return
        self._closed = True
        with self._conversations.hold():
            self._backoff.cancel()
            if self._config_timer is not None:
                self._config_timer.cancel()
            self._link.close()
            self._way.close()
            self._unwatch_errors()
            self.door.close()

    # Conversations: under the lock.

    def _greet(self) -> Talk[None]:
        wanted = self._terms.protocol
        wishes = Wishes(
            protocol=wanted,
            required=wanted & ProtocolFeature.CONFIG if self.device.config_size else NO_FEATURES,
            config_size=self.device.config_size if self._terms.remote_config else 0,
        )
        peer = yield from user_talk.greet(wishes, self._link.open_back_channel() if self._terms.remote_config else None)
        self._check(peer)
        self._peer = peer
        self._backoff.connected()
        self._take_config(peer.config)

    def _start(self, session: Session) -> Talk[None]:
        """Running rings. Raises PeerError where those of an earlier back-end can't be taken on."""
        user_plan.check_peer(session, self._terms, self._peer)
        self._watch_errors()
        plan = self._way.plan(session, self._peer)
        for offset, data in self._written.items():
            yield from user_talk.set_config(self._peer, offset, data)
        yield from user_talk.prepare(self._peer, plan, self._way.slot(session))
        self._way.hand_over()
        yield from user_talk.set_up(self._peer, plan, self._err_fd)
        yield from self._switches.switch_on(self._peer, session.queues)
        yield from user_talk.run(self._peer)
        self._running = True
        self._way.notify(session)

    def _return_to_work(self) -> Talk[None]:
        yield from self._greet()
        if self._session is not None and not self._doomed:
            yield from self._start(self._session)

    def _check(self, peer: Peer) -> None:
        """Whether *peer* can serve this device. Raises PeerError."""
        if not peer.features & features.VERSION_1:
            raise PeerError("it does not offer VIRTIO_F_VERSION_1")
        if lacking := self._terms.lacking(peer.features):
            raise PeerError(f"it does not offer what devices of its kind must: {', '.join(lacking)}")
        there = self._terms.queues_there(len(self.device.queue_sizes), peer.features, peer.config)
        wanted = min(there, len(super().remote_queues(self.device.features)))
        shortage = self._terms.shortage(wanted, peer.features, peer.queues)
        if shortage is not None:
            raise PeerError(shortage)

    def _converse(self, talk: Talk[T]) -> T | None:
        """Have *talk*; None when it failed, of which ``_lost`` took care."""
        try:
            return self._link.run(talk)
        except HostError as e:
            self._lost(e)
            return None

    # The end of a connection and the next one: under the lock.

    def _lost(self, error: HostError) -> None:
        """The connection ended, or there is nobody to connect to."""
        error = self.door.lost(error)
        self._running = False
        hopeless = self._way.lost(error)
        self._switches.forget()
        if not isinstance(error, PeerError):
            log.warning("%s; the device waits for another", self._described(error))
            self._backoff.schedule()
            self._doom(hopeless)
        elif self._session is None:
            log.error("%s", self._described(error))
        else:
            self.device.fail(self._described(error))

    def _doom(self, error: HostError | None) -> None:
        """Ask the driver for a reset where no other back-end could go on; the next one is kept for what follows."""
        if error is not None and not self._doomed:
            self._doomed = True
            self.device.fail(self._described(error))

    def _bad_answer(self, relay: Relay, error: HostError) -> None:
        """*relay* got nonsense. An I/O loop's thread; the driver may be another by the time the main loop hears it."""
        self._conversations.loop.call_soon(
            lambda: self._conversations.run_on_loop(lambda: self._give_up(error) if self._way.is_of(relay) else None)
        )

    def _give_up(self, error: HostError) -> None:
        if self._link.connected:
            self._link.drop()
            self._lost(error)

    def _connect_anew(self) -> None:
        """An earlier back-end was given up; the driver has reset the device, which is a new chance for both."""
        try:
            self._link.connect(self.door.connect())
            self._link.run(self._greet())
        except HostError as e:
            self._lost(e)

    def _reconnect(self) -> None:
        try:
            self._link.connect(self.door.connect())
        except PeerError as e:  # nor will there be one
            self._lost(e)
        except HostError:  # was told when the last one went
            self._backoff.schedule()
        else:
            self._link.begin(self._return_to_work(), lambda _: self._is_back())

    def _is_back(self) -> None:
        log.info("%s: is there again", self._where)
        self._switches.follow()

    # What the back-end says by itself: main loop, under the lock.

    def _notice(self, message: Message) -> int:
        """A message on the back-end's own channel; returns the verdict, 0 for good."""
        if message.code != BackendRequest.CONFIG_CHANGE_MSG or message.fds or message.is_reply:
            raise PeerError(f"its own request {message.code} is none of those agreed on")
        if self._config_timer is None:
            self._fetch_config_later()
        return 0

    def _fetch_config_later(self) -> None:
        talks = self._conversations
        self._config_timer = talks.loop.call_later(CONFIG_DELAY_S, lambda: talks.run_on_loop(self._fetch_config))

    def _fetch_config(self) -> None:
        self._config_timer = None
        if self._link.busy:
            self._fetch_config_later()
        elif self._link.connected and not self._closed and self.device.config_size:
            self._link.begin(user_talk.get_config(self.device.config_size), self._config_fetched)

    def _config_fetched(self, config: bytes) -> None:
        self._take_config(config)
        self._switches.follow()

    def _take_config(self, config: bytes) -> None:
        before, self._config = self._config, self._terms.patch_config(config, len(self.device.queue_sizes))
        if before and before != self._config:
            self.device.config_changed()

    def _watch_errors(self) -> None:
        """Have the eventfd for SET_VRING_ERR. Raises HostError."""
        if self._err_fd < 0:
            err_fd = make_eventfd()
            self._conversations.loop.add(err_fd, lambda: self._conversations.run_on_loop(self._ring_error), events=ONCE)
            self._err_fd = err_fd

    def _unwatch_errors(self) -> None:
        err_fd, self._err_fd = self._err_fd, -1
        if err_fd >= 0:
            self._conversations.loop.remove(err_fd)
            os.close(err_fd)

    def _ring_error(self) -> None:
        """SET_VRING_ERR's eventfd. The next back-end gets another one, which this one can't write."""
        if not self._closed:
            self._give_up(PeerError("it reports an error in a ring"))
            self._unwatch_errors()

    @property
    def _where(self) -> str:
        return f"{self.device.name}: {self.door.place}"

    def _described(self, error: HostError) -> HostError:
        return HostError(f"{self._where}: {error}")
