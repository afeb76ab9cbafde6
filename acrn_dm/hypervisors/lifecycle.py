"""The states of a virtual machine and which calls they allow; shared by every hypervisor."""

import enum

from acrn_dm.base.records import define


class State(enum.Enum):
    """The place of a virtual machine in the life cycle of ``contract.hypervisor``."""

    READY = "not started"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    CLOSED = "closed"


AT_REST = (State.READY, State.PAUSED)
OPEN = (State.READY, State.RUNNING, State.PAUSED, State.STOPPED)


@define(eq=False)
class Lifecycle:
    """The current state. A call in a wrong one is a bug of the caller: RuntimeError."""

    state: State = State.READY

    def require(self, call: str, *allowed: State) -> None:
        """Raise RuntimeError unless the state is one of *allowed*."""
        if self.state not in allowed:
            raise RuntimeError(f"{call}: the virtual machine is {self.state.value}")
