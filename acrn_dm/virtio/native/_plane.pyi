from typing_extensions import disjoint_base

from acrn_dm.base.events._poll import EventPoll
from acrn_dm.virtio.native._coalescer import Coalescer
from acrn_dm.virtio.native._counters import QueueCounters

@disjoint_base
class Plane:
    @property
    def counters(self) -> QueueCounters: ...
    @property
    def generation(self) -> int: ...
    @staticmethod
    def takes(ring: object) -> bool: ...
    def start(
        self,
        ring: object,
        poll: EventPoll,
        counters: QueueCounters,
        *,
        kick_fd: int,
        call_fd: int = -1,
        timed: bool = False,
        coalescer: Coalescer | None = None,
    ) -> None: ...
    def stop(self) -> None: ...
    def detach(self) -> None: ...
    def look(self) -> None: ...
    def asked(self) -> tuple[bool, Exception | None]: ...
    def failure(self, status: int) -> Exception: ...
