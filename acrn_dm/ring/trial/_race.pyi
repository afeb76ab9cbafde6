from typing_extensions import disjoint_base

LOST_WAKE_UP: int
WRONG_CHAIN: int
WRONG_DATA: int
BROKEN: int

@disjoint_base
class Race:
    def __new__(
        cls,
        *,
        packed: bool,
        event_idx: bool,
        size: int,
        chains: int,
        limit_ms: int = 20000,
        linger: int = 0,
        faulty: bool = False,
    ) -> Race: ...
    @property
    def kicks(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def driver_slept(self) -> int: ...
    @property
    def device_slept(self) -> int: ...
    @property
    def done(self) -> int: ...
    def serve(self) -> int: ...
    def drive(self) -> int: ...
