"""Actions of a driver, and whole sessions, as strategies. What fails shrinks to a few lines; ``replay`` prints them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from acrn_dm.testing.sessions.actions import (
    Action,
    Advance,
    Collect,
    Kick,
    Poke,
    ReadConfig,
    Reset,
    Send,
    Session,
    Settle,
    Start,
    WriteConfig,
)
from acrn_dm.testing.strategies.rings import Shape, chains, descriptors

FEATURES = (None, 0, 1 << 28, 1 << 29)  # all that are offered, none, indirect tables only, event index only


def actions(
    *,
    queues: Sequence[int] = (0,),
    requests: st.SearchStrategy[Shape] | None = None,
    hostile: bool = False,
    config_size: int = 16,
    max_seconds: float = 2.0,
) -> st.SearchStrategy[Action]:
    """One action of a driver that has these *queues*. *requests* are the chains that it sends (default: any); with
    *hostile*, rings are broken, too.
    """
    queue = st.sampled_from(list(queues))
    shapes = chains() if requests is None else requests
    kinds: list[st.SearchStrategy[Action]] = [
        st.builds(_send, queue, shapes, st.booleans()),
        st.builds(Kick, queue=queue, force=st.booleans()),
        st.builds(Settle),
        st.builds(Collect, queue=queue),
        st.builds(Start, features=st.sampled_from(FEATURES)),
        st.builds(Reset),
        st.builds(ReadConfig, offset=st.integers(0, config_size), length=st.integers(1, 8)),
        st.builds(WriteConfig, offset=st.integers(0, config_size), data=st.binary(min_size=1, max_size=4)),
        st.builds(Advance, seconds=st.floats(0, max_seconds, allow_nan=False).map(lambda s: round(s, 3))),
    ]
    if hostile:
        kinds.append(st.builds(Poke, queue=queue, descriptors=descriptors(), head=st.sampled_from([0, 1, 0xFFFF])))
    return st.one_of(kinds)


def sessions(
    *,
    queues: Sequence[int] = (0,),
    requests: st.SearchStrategy[Shape] | None = None,
    hostile: bool = False,
    config_size: int = 16,
    max_actions: int = 20,
) -> st.SearchStrategy[Session]:
    """Whole sessions: a driver starts the device, does anything in any order, then lets the device finish and takes
    back what is there.
    """
    step = actions(queues=queues, requests=requests, hostile=hostile, config_size=config_size)
    request = st.builds(
        _request, st.sampled_from(list(queues)), chains() if requests is None else requests, st.booleans()
    )
    steps = st.lists(st.one_of(step.map(lambda action: (action,)), request), max_size=max_actions)
    ending = (Settle(), *(Collect(queue=index) for index in queues))
    return steps.map(lambda parts: Session((Start(), *(action for part in parts for action in part), *ending)))


def _send(queue: int, shape: Shape, indirect: bool) -> Send:
    return Send(queue=queue, out=shape[0], in_=shape[1], indirect=indirect)


def _request(queue: int, shape: Shape, indirect: bool) -> tuple[Action, ...]:
    """What drivers do most: a chain, a kick, and the answer."""
    return (_send(queue, shape, indirect), Kick(queue=queue), Settle(), Collect(queue=queue))
