from typing_extensions import disjoint_base

from acrn_dm.base.events._poll import EventPoll

@disjoint_base
class CHandler:
    def __init__(
        self,
        poll: EventPoll,
        fd: int,
        *,
        signals: int = -1,
        again: int = 0,
        asks: bool = False,
        busy_ns: int = 0,
    ) -> None: ...
    @property
    def entered(self) -> int: ...
    @property
    def left(self) -> int: ...
