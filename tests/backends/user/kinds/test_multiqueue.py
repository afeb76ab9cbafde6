"""Several queue pairs over vhost-user: the control queue is served here, its commands become SET_VRING_ENABLE."""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.user import link as user_link
from acrn_dm.backends.wire.message import PROTOCOL_FEATURES, ProtocolFeature, Request
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.eventfd import drain
from acrn_dm.devices import virtio_net
from acrn_dm.devices.virtio_net.control import ACK_ERROR, ACK_OK
from acrn_dm.devices.virtio_net.request import CTRL_GUEST_OFFLOADS, CTRL_VQ, MAC, MQ, MRG_RXBUF, STATUS
from acrn_dm.testing import SimMachine, VirtioDriver
from acrn_dm.testing.driver import NEEDS_RESET, VERSION_1
from tests.backends.user.peers.peer import ALL, Connection, Peer, Received
from tests.backends.user.user_rig import eventually
from tests.virtio.pause import pause, resume

FEATURES = VERSION_1 | MRG_RXBUF | MQ | CTRL_VQ | PROTOCOL_FEATURES
PAIRS_SET = (4, 0)


pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


@attrs.define(eq=False)
class Card:
    """The machine, the card's driver and the back-end."""

    machine: SimMachine
    driver: VirtioDriver
    peer: Peer

    def send(self, pairs: int, queue: int = 4) -> None:
        """Have VQ_PAIRS_SET sent; nobody waits for its end."""
        self.driver.queue(queue).send([bytes(PAIRS_SET), pairs.to_bytes(2, "little")], [1])
        self.driver.queue(queue).kick()

    def acknowledged(self, count: int = 1, queue: int = 4) -> list[bytes]:
        """Wait for *count* commands to come back."""
        done: list[bytes] = []

        def look() -> bool:
            done.extend(c.data for c in self.driver.queue(queue).completed())
            return len(done) >= count

        eventually(self.machine, look)
        return done

    def use(self, pairs: int, queue: int = 4) -> bytes:
        """VQ_PAIRS_SET from begin to end."""
        self.send(pairs, queue)
        return self.acknowledged(queue=queue)[0]

    def switched(self) -> list[tuple[int, int]]:
        """SET_VRING_ENABLE requests since the last call: ring and state."""
        found = [struct.unpack("<II", r.payload) for r in self.peer.seen if r.code == Request.SET_VRING_ENABLE]
        self.peer.seen.clear()
        return found  # type: ignore[return-value]


@contextmanager
def card(path: Path, peer: Peer | None = None, mq: int = 2) -> Iterator[Card]:
    """A card in slot 3, not yet driven."""
    with peer or Peer(path, features=FEATURES) as backend, SimMachine(plugins=[virtio_net, vhost_user]) as machine:
        machine.add("virtio-net", f"vhost-user={path},mq={mq}", slot=3)
        yield Card(machine, machine.driver(3), backend)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_rings_of_all_pairs_are_told_and_those_of_the_first_enabled(path: Path) -> None:
    with card(path, mq=3) as c:
        assert c.driver.read_config(8, 2) == b"\x03\x00"
        c.driver.start()
        for code in (Request.SET_VRING_KICK, Request.SET_VRING_CALL):
            told = [r.payload[0] for r in c.peer.seen if r.code == code]
            assert told == [0, 1, 2, 3, 4, 5], "the control queue is ours"
        assert c.switched() == [(0, 1), (1, 1)]


def test_command_enables_and_disables_pairs(path: Path) -> None:
    with card(path, mq=3) as c:
        c.driver.start()
        c.switched()
        for pairs, told in (
            (3, [(2, 1), (3, 1), (4, 1), (5, 1)]),
            (2, [(4, 0), (5, 0)]),
            (2, []),
            (1, [(2, 0), (3, 0)]),
        ):
            assert c.use(pairs, queue=6) == ACK_OK
            assert c.switched() == told


@pytest.mark.parametrize("pairs", [0, 3])
def test_number_of_pairs_that_is_not_there_is_refused(path: Path, pairs: int) -> None:
    with card(path) as c:
        c.driver.start()
        c.switched()
        assert c.use(pairs) == ACK_ERROR
        assert c.switched() == []


def test_backend_is_told_of_mq_and_not_of_what_is_answered_here(path: Path) -> None:
    with card(path) as c:
        accepted = c.driver.start()
        assert accepted & (MQ | CTRL_VQ | MAC | STATUS) == MQ | CTRL_VQ | MAC | STATUS
        (told,) = struct.unpack("<Q", c.peer.last(Request.SET_FEATURES).payload)
        assert told & (MQ | CTRL_VQ | MAC | STATUS | MRG_RXBUF) == MQ | MRG_RXBUF


def test_offloads_can_not_be_switched_because_the_backend_can_not_be_told(path: Path) -> None:
    with card(path, Peer(path, features=FEATURES | CTRL_GUEST_OFFLOADS)) as c:
        assert not c.driver.registers.offered() & CTRL_GUEST_OFFLOADS


def test_driver_without_mq_has_one_pair_and_control_queue_two(path: Path) -> None:
    with card(path) as c:
        c.driver.start(CTRL_VQ)  # and enables all five queues
        assert [r.payload[0] for r in c.peer.seen if r.code == Request.SET_VRING_KICK] == [0, 1]
        assert c.use(2, queue=2) == ACK_ERROR
        for index in (3, 4):
            c.driver.registers.notify(index)
        assert c.machine.failures == []


def test_driver_without_a_control_queue_gets_no_more_rings_by_enabling_them(path: Path) -> None:
    with card(path) as c:
        c.driver.start(MRG_RXBUF)
        assert [r.payload[0] for r in c.peer.seen if r.code == Request.SET_VRING_KICK] == [0, 1]
        for index in (2, 3, 4):
            c.driver.queue(index).send([b"\x04\x00\x02\x00"], [1])
            c.driver.queue(index).kick(force=True)
        c.machine.settle()
        assert c.machine.failures == []


class Held(Peer):
    """Confirms SET_VRING_ENABLE, or without REPLY_ACK the question that follows it, of rings past the first pair only
    when it is told to.
    """

    def __init__(self, path: Path, protocol: ProtocolFeature = ALL) -> None:
        self.go_on = threading.Event()
        self.reached = threading.Event()
        self._hold_next = False
        answers = {Request.SET_VRING_ENABLE: self._enable, Request.GET_FEATURES: self._features}
        super().__init__(path, answers, features=FEATURES, protocol=protocol)

    def _enable(self, connection: Connection, request: Received) -> None:
        self._hold_next = request.payload[0] >= 2
        if request.flags & 8:
            self._hold()
        self.answer_well(connection, request)

    def _features(self, connection: Connection, request: Received) -> None:
        self._hold()
        self.answer_well(connection, request)

    def _hold(self) -> None:
        if self._hold_next:
            self._hold_next = False
            self.reached.set()
            assert self.go_on.wait(10)


@pytest.mark.parametrize("protocol", [ALL, ALL & ~ProtocolFeature.REPLY_ACK], ids=["reply-ack", "no reply-ack"])
def test_command_is_acknowledged_when_the_backend_has_confirmed(path: Path, protocol: ProtocolFeature) -> None:
    peer = Held(path, protocol)
    with card(path, peer) as c:
        c.driver.start()
        c.send(2)
        eventually(c.machine, peer.reached.is_set)
        c.machine.settle()
        assert c.driver.queue(4).completed() == []
        peer.go_on.set()
        assert c.acknowledged() == [ACK_OK]


def test_commands_behind_one_that_takes_its_time_keep_their_order(path: Path) -> None:
    peer = Held(path)
    with card(path, peer) as c:
        c.driver.start()
        c.switched()
        for pairs in (2, 7, 1):
            c.send(pairs)
        eventually(c.machine, peer.reached.is_set)
        peer.go_on.set()
        assert c.acknowledged(3) == [ACK_OK, ACK_ERROR, ACK_OK]
        assert c.switched() == [(2, 1), (3, 1), (2, 0), (3, 0)]


def test_reset_while_a_command_is_carried_out_goes_through_and_the_next_driver_begins_with_one_pair(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Held(path)
    with card(path, peer) as c:
        c.driver.start()
        c.send(2)
        eventually(c.machine, peer.reached.is_set)
        threading.Timer(0.05, peer.go_on.set).start()
        c.driver.reset()
        c.switched()
        c.driver.start()
        assert c.switched() == [(0, 1), (1, 1)]
        assert c.use(2) == ACK_OK
        assert c.machine.failures == []
    assert caplog.records == [], "an acknowledgement that comes late is dropped"


def test_enabled_ring_is_looked_at(path: Path) -> None:
    """The driver may have kicked while it was disabled."""
    with card(path) as c:
        c.driver.start()
        kicks = {r.payload[0]: r.fds[0] for r in c.peer.seen if r.code == Request.SET_VRING_KICK}
        for fd in kicks.values():
            drain(fd)
        assert c.use(2) == ACK_OK
        eventually(c.machine, lambda: drain(kicks[2]) > 0 and drain(kicks[3]) > 0)
        assert drain(kicks[0]) == 0


def test_next_backend_enables_what_the_driver_uses(path: Path) -> None:
    with card(path, mq=3) as c:
        c.driver.start()
        assert c.use(2, queue=6) == ACK_OK
        c.switched()
        c.peer.hang_up()
        eventually(c.machine, lambda: Request.SET_STATUS in c.peer.codes() and c.peer.status & 4 == 4)
        assert c.switched() == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_backend_that_dies_over_a_command_leaves_it_to_the_next_one(path: Path) -> None:
    peer = Held(path)
    with card(path, peer) as c:
        c.driver.start()
        c.send(2)
        eventually(c.machine, peer.reached.is_set)
        c.switched()
        peer.hang_up()
        peer.go_on.set()
        assert c.acknowledged() == [ACK_OK]
        eventually(c.machine, lambda: (3, 1) in [struct.unpack("<II", r.payload) for r in peer.seen if r.code == 18])
        assert c.machine.failures == []


def test_backend_that_dies_over_a_command_and_has_no_successor_does_not_keep_the_driver_waiting(path: Path) -> None:
    peer = Held(path)
    with card(path, peer) as c:
        c.driver.start()
        c.send(2)
        eventually(c.machine, peer.reached.is_set)
        peer.answers[Request.GET_FEATURES] = refuse
        peer.hang_up()
        peer.go_on.set()
        assert c.acknowledged() == [ACK_OK]


@pytest.mark.parametrize("moment", [Request.GET_QUEUE_NUM, Request.SET_VRING_ENABLE, Request.SET_STATUS])
def test_command_while_the_next_backend_is_told_everything_waits_for_the_end_of_that(
    path: Path, moment: Request
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(connection: Connection, request: Received) -> None:
        reached.set()
        assert go_on.wait(10)
        c.peer.answer_well(connection, request)

    with card(path) as c:
        c.driver.start()
        c.switched()
        c.peer.answers[moment] = hold
        c.peer.hang_up()
        eventually(c.machine, reached.is_set)
        c.send(2)
        c.machine.settle()
        go_on.set()
        assert c.acknowledged() == [ACK_OK]
        assert sorted(c.switched()) == [(0, 1), (1, 1), (2, 1), (3, 1)]
        assert c.use(1) == ACK_OK
        assert c.machine.failures == []


def test_command_without_a_backend_is_for_the_next_one(path: Path) -> None:
    with card(path) as c:
        c.driver.start()
        c.peer.answers[Request.GET_FEATURES] = refuse
        c.peer.hang_up()
        eventually(c.machine, lambda: c.peer.connections > 1)
        assert c.use(2) == ACK_OK
        c.switched()
        del c.peer.answers[Request.GET_FEATURES]
        eventually(c.machine, lambda: c.peer.codes().count(Request.SET_VRING_ENABLE) == 4)
        assert c.machine.failures == []


def refuse(connection: Connection, request: Received) -> None:
    raise ConnectionError


def test_backend_that_keeps_silent_over_a_command_costs_its_device_a_reset(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_link, "TIME_LIMIT_S", 0.3)
    with card(path) as c:
        c.driver.start()
        c.peer.answers[Request.SET_VRING_ENABLE] = lambda connection, request: None
        c.send(2)
        eventually(c.machine, lambda: bool(c.driver.status & NEEDS_RESET))
        assert "SET_VRING_ENABLE was not answered" in str(c.machine.failures[0][1])


def test_pause_and_resume_keep_what_the_driver_uses(path: Path) -> None:
    with card(path) as c:
        function = c.machine.bus.functions[0]
        c.driver.start()
        assert c.use(2) == ACK_OK
        c.switched()
        pause(function)
        assert [ring for ring, state in c.switched() if not state] == [0, 1, 2, 3]
        resume(function)
        assert c.switched() == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_pause_in_a_command_has_it_carried_out_after_the_resume(path: Path) -> None:
    peer = Held(path)
    with card(path, peer) as c:
        function = c.machine.bus.functions[0]
        c.driver.start()
        c.send(2)
        eventually(c.machine, peer.reached.is_set)
        peer.go_on.set()
        pause(function)
        resume(function)
        assert c.acknowledged() == [ACK_OK]
        assert c.use(1) == ACK_OK


# Back-ends that can't


def one_pair(connection: Connection, request: Received) -> None:
    connection.send(request.code, struct.pack("<Q", 1))


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({"answers": {Request.GET_QUEUE_NUM: one_pair}}, "it serves 1 queue pair, the device has 2"),
        (
            {"protocol": ALL & ~ProtocolFeature.MQ},
            "it serves one queue pair, having no protocol feature MQ; the device has 2",
        ),
        ({"features": FEATURES & ~PROTOCOL_FEATURES}, "it serves one queue pair, having no protocol feature MQ"),
        ({"features": FEATURES & ~MQ}, "it does not offer VIRTIO_NET_F_MQ; the device has 2 queue pairs"),
    ],
)
def test_backend_that_can_not_serve_so_many_is_refused_before_the_guest_starts(
    path: Path, peer: dict[str, object], message: str
) -> None:
    machine = SimMachine(plugins=[virtio_net, vhost_user])
    with Peer(path, **{"features": FEATURES, **peer}):  # type: ignore[arg-type]
        machine.add("virtio-net", f"vhost-user={path},mq=2", slot=3)
        with pytest.raises(HostError, match=message):
            machine.driver(3)
        machine.close()


def test_as_many_pairs_as_the_backend_serves_are_enough(path: Path) -> None:
    two = {Request.GET_QUEUE_NUM: lambda connection, request: connection.send(request.code, struct.pack("<Q", 2))}
    with card(path, Peer(path, two, features=FEATURES)) as c:
        c.driver.start()
        assert c.use(2) == ACK_OK


def test_commands_leave_no_timers_behind(path: Path) -> None:
    """Each conversation has a time limit, and a driver may start conversations as fast as it likes."""
    with card(path) as c:
        c.driver.start()
        for number in range(200):
            assert c.use(2 - number % 2) == ACK_OK
        assert len(c.machine.main_loop._timers) < 100


def requests_of(c: Card, index: int) -> list[Request]:
    """What was said of ring *index* since the last call, in order; nothing was of another."""
    said = [(Request(r.code), r.payload[0]) for r in c.peer.seen]
    c.peer.seen.clear()
    vring = [(code, at) for code, at in said if "VRING" in code.name]
    assert {at for _, at in vring} == {index}
    return [code for code, _ in vring]


def test_ring_that_its_driver_resets_is_taken_back_alone_and_given_again(path: Path) -> None:
    with card(path) as c:
        c.driver.start()
        c.peer.seen.clear()
        c.driver.reset_queue(1)
        assert requests_of(c, 1) == [Request.GET_VRING_BASE, Request.SET_VRING_ENABLE]
        c.driver.setup_queue(1, size=64)
        assert struct.unpack("<II", c.peer.last(Request.SET_VRING_NUM).payload) == (1, 64)
        assert struct.unpack("<II", c.peer.last(Request.SET_VRING_BASE).payload) == (1, 0)
        said = requests_of(c, 1)
        assert said[-2:] == [Request.SET_VRING_KICK, Request.SET_VRING_ENABLE]
        assert Request.RESET_DEVICE not in said


def test_ring_of_a_pair_at_rest_comes_back_disabled_and_is_enabled_with_its_pair(path: Path) -> None:
    with card(path) as c:
        c.driver.start()
        c.driver.reset_queue(2)
        c.peer.seen.clear()
        c.driver.setup_queue(2)
        assert c.switched() == []
        assert c.use(2) == ACK_OK
        assert sorted(c.switched()) == [(2, 1), (3, 1)]


def test_next_back_end_gets_the_rings_that_there_are(path: Path) -> None:
    with card(path) as c:
        c.driver.start()
        c.driver.reset_queue(0)
        c.peer.seen.clear()
        c.peer.hang_up()
        eventually(c.machine, lambda: any(r.code == Request.SET_VRING_ENABLE for r in c.peer.seen))
        c.machine.settle()
        assert [r.payload[0] for r in c.peer.seen if r.code == Request.SET_VRING_KICK] == [1, 2, 3]
