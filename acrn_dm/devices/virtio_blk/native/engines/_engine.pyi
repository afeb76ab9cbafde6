from typing import Final

from typing_extensions import disjoint_base

@disjoint_base
class BlkEngine:
    event_fd: Final[int]
    in_flight: Final[int]
    cancelled: Final[bool]
    def close(self) -> None: ...
