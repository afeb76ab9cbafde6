"""Sessions: printed, read again, replayed; and a device's bug that a strategy finds, shrinks and prints."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from acrn_dm.base.errors import GuestError
from acrn_dm.testing import SimMachine
from acrn_dm.testing.sessions import Player, Poke, Send, Session, SessionFailed, Start, parse_session, replay
from acrn_dm.testing.strategies import actions, chains, sessions
from acrn_dm.virtio.queue import Queue
from tests.virtio.parts import SLOT, Echo

QUICK = settings(
    max_examples=25, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate]
)


def with_device(device: type[Echo]) -> object:
    return lambda machine: machine.add(device, slot=SLOT)


class ReadsPastTheEnd(Echo):
    """Planted: a request of three buffers or more whose last one is small ends in an index error."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            parts = [bytes(view) for view in chain.readable()]
            if len(parts) >= 3:
                parts[2][4]
            queue.push(chain, 0)


class LosesItsHead(Echo):
    """Planted: after a second start of the driver, a long request ends in a lookup error."""

    def start(self, features: int, queues: object) -> None:
        self.calls.append("start")
        self.kept = self.calls.count("start") >= 2

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            if self.kept and chain.readable_bytes > 10:
                raise LookupError("which driver was it?")
            queue.push(chain, 0)


class Refuses(Echo):
    def handle_queue(self, queue: Queue) -> None:
        if queue.pop_batch():
            raise GuestError("not like that")


@QUICK
@given(sessions(queues=(0, 1), hostile=True))
def test_session_prints_as_the_text_that_it_is_read_from(session: Session) -> None:
    assert parse_session(str(session)) == session


@QUICK
@given(sessions(queues=(0, 1), hostile=True, max_actions=8))
def test_good_device_survives_any_session(session: Session) -> None:
    replay(session, with_device(Echo))  # type: ignore[arg-type]


def find(device: type[Echo], strategy: st.SearchStrategy[Session], examples: int) -> SessionFailed:
    phases = [Phase.generate, Phase.shrink]

    @settings(max_examples=examples, derandomize=True, database=None, deadline=None, phases=phases)
    @given(strategy)
    def any_driver(session: Session) -> None:
        replay(session, with_device(device))  # type: ignore[arg-type]

    with pytest.raises(SessionFailed) as found:
        any_driver()
    return found.value


def replayed(found: SessionFailed, device: type[Echo]) -> str:
    """The session as *found* prints it, after a replay that ends in the same error."""
    printed = str(found).partition("The session:\n\n")[2]
    with pytest.raises(SessionFailed) as again:
        replay(printed, with_device(device))  # type: ignore[arg-type]
    assert type(again.value.__cause__) is type(found.__cause__)
    return printed


def test_planted_bug_is_found_and_the_printed_session_replays_it() -> None:
    few = sessions(requests=chains(max_buffers=4, max_length=1), max_actions=1)
    found = find(ReadsPastTheEnd, few, 40)
    assert isinstance(found.__cause__, IndexError)
    lines = replayed(found, ReadsPastTheEnd).splitlines()
    assert lines[:2] == ["start()", "send(queue=0, out=[b'\\x00', b'\\x00', b'\\x00'])"]
    assert len(lines) <= 4


@pytest.mark.stress
@pytest.mark.parametrize(("device", "most"), [(ReadsPastTheEnd, 4), (LosesItsHead, 7)])
def test_bug_in_any_driver_shrinks_to_a_few_lines(device: type[Echo], most: int) -> None:
    lines = replayed(find(device, sessions(max_actions=8), 300), device).splitlines()
    assert len(lines) <= most, lines


def test_error_that_a_driver_has_deserved_is_no_failure() -> None:
    replay("start()\nsend(queue=0, out=[b'a'])\nkick(queue=0)\nsettle()", with_device(Refuses))  # type: ignore[arg-type]


def test_check_of_the_author_sees_each_completion_and_fails_with_the_session() -> None:
    def backwards(player: Player) -> None:
        for completion in player.done.get(0, ()):
            assert completion.data != b"cba"

    text = "start()\nsend(queue=0, out=[b'abc'], in_=[3])\nkick(queue=0)\nsettle()\ncollect(queue=0)"
    with pytest.raises(SessionFailed, match=r"(?s)assert.*session:\n\nstart\(\)\nsend\(queue=0, out="):
        replay(text, with_device(Echo), backwards)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line", ["jump()", "send(0)", "send(queue=0", "send(queue=open('x'))", "start(speed=1)", "1 + 1"]
)
def test_line_that_is_no_action_is_told(line: str) -> None:
    with pytest.raises(ValueError, match="is no action") as caught:
        parse_session(f"start()\n# a comment\n{line}")
    assert repr(line) in str(caught.value)


def test_requests_may_be_the_authors_own() -> None:
    own = st.just(((b"header", b"data"), (1,)))
    found: list[Send] = []

    @QUICK
    @given(actions(requests=own))
    def collect(action: object) -> None:
        found.extend([action] if isinstance(action, Send) else [])

    collect()
    assert {(send.out, send.in_) for send in found} == {((b"header", b"data"), (1,))}


def test_record_is_replayed_like_its_text() -> None:
    session = Session([Start(), Poke(queue=0, descriptors=[(0, 16, 1, 0)])])
    assert replay(session, with_device(Echo)).done == replay(str(session), with_device(Echo)).done == {}  # type: ignore[arg-type]


def test_device_without_configuration_ignores_accesses_to_it() -> None:
    class Bare(Echo):
        config = b""

    with SimMachine() as machine:
        machine.add(Bare, slot=SLOT)
        assert not machine.driver(SLOT).has_config
    replay("start()\nread_config(offset=0, length=4)\nwrite_config(offset=0, data=b'a')", with_device(Bare))  # type: ignore[arg-type]
