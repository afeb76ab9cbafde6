"""The player of sessions: a fresh machine with one device, each action done in turn, and what a device may never do."""

from collections.abc import Callable
from functools import singledispatchmethod

from acrn_dm.base.errors import AcrnDmError
from acrn_dm.testing.clock import VirtualClock
from acrn_dm.testing.driver import INDIRECT_DESC, NEEDS_RESET, PACKED, Completion, VirtioDriver
from acrn_dm.testing.machine import SimMachine
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
    parse_session,
)

SLOT = 3

Build = Callable[[SimMachine], object]


class SessionFailed(AssertionError):
    """A session in which the device did what it may not. The message has the session as text; ``__cause__`` is what
    went wrong, ``session`` the session as far as it was played.
    """

    def __init__(self, session: Session, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}\n\nThe session:\n\n{session}\n")
        self.session = session


class Player:
    """One session on a machine of its own. ``machine``, ``driver`` and ``done``, all completions by queue, are for
    checks.
    """

    def __init__(self, machine: SimMachine, driver: VirtioDriver) -> None:
        self.machine = machine
        self.driver = driver
        self.done: dict[int, list[Completion]] = {}
        self._failures = 0

    def play(self, action: Action) -> None:
        """Do one action. Raises what the device raised, unless it is an AcrnDmError, which a device may raise for what
        a driver or a host does; AssertionError for a chain that comes back twice or with more bytes than it has.
        """
        self._do(action)
        failures = self.machine.failures
        for _, error in failures[self._failures :]:
            if not isinstance(error, AcrnDmError):
                raise error
        self._failures = len(failures)

    @singledispatchmethod
    def _do(self, action: Action) -> None:
        raise TypeError(f"{action!r} is no action")

    @_do.register
    def _(self, action: Start) -> None:
        accepted = self.driver.registers.offered() & ~PACKED if action.features is None else action.features
        self.driver.start(accepted & self.driver.registers.offered())

    @_do.register
    def _(self, action: Reset) -> None:
        self.driver.reset()

    @_do.register
    def _(self, action: Send) -> None:
        queue = self.driver.queues.get(action.queue)
        indirect = action.indirect and bool(self.driver.features & INDIRECT_DESC)
        needed = 1 if indirect else len(action.out) + len(action.in_)
        if queue is not None and 0 < needed <= queue.ring.free_descriptors:
            queue.send(action.out, action.in_, indirect=indirect)

    @_do.register
    def _(self, action: Kick) -> None:
        queue = self.driver.queues.get(action.queue)
        if queue is not None:
            queue.kick(force=action.force)

    @_do.register
    def _(self, action: Settle) -> None:
        self.machine.settle()

    @_do.register
    def _(self, action: Collect) -> None:
        queue = self.driver.queues.get(action.queue)
        if queue is None:
            return
        for completion in queue.completed():
            size = len(completion.data)
            assert completion.written <= size, f"claims {completion.written} of {size} writable bytes"
            self.done.setdefault(action.queue, []).append(completion)

    @_do.register
    def _(self, action: ReadConfig) -> None:
        if self.driver.has_config:
            self.driver.read_config(action.offset, action.length)

    @_do.register
    def _(self, action: WriteConfig) -> None:
        if self.driver.has_config:
            self.driver.write_config(action.offset, action.data)

    @_do.register
    def _(self, action: Advance) -> None:
        self.machine.advance(action.seconds)

    @_do.register
    def _(self, action: Poke) -> None:
        queue = self.driver.queues.get(action.queue)
        if queue is None:
            return
        queue.ring.poke(action.descriptors[: queue.ring.layout.size], action.head)
        self.driver.registers.notify(action.queue)
        self.machine.settle()
        self.driver.reset()


def replay(session: Session | str, build: Build, check: Callable[[Player], object] = lambda player: None) -> Player:
    """Play *session*, a record or its text, on the device that *build* puts into slot 3 of the machine it is given.

    *check* is called after each action, to say what only the author knows. At the end the device has to work again
    after a reset. Raises SessionFailed for what a device may never do, and for what *check* raises.
    """
    actions = (parse_session(session) if isinstance(session, str) else session).actions
    played: list[Action] = []
    try:
        with SimMachine(clock=VirtualClock()) as machine:
            build(machine)
            player = Player(machine, machine.driver(SLOT))
            for action in (*actions, Start()):
                played.append(action)
                player.play(action)
                check(player)
            assert not player.driver.status & NEEDS_RESET, "the device is not usable after a reset"
    except Exception as e:  # whatever it is, the session has to be printed with it
        raise SessionFailed(Session(tuple(played[: len(actions)])), e) from e
    return player
