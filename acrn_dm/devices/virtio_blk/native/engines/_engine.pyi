from typing import Final

from typing_extensions import disjoint_base

__pyx_capi__: dict[str, object]  # the C functions, for Cython's cimport

@disjoint_base
class BlkEngine:
    event_fd: Final[int]
    in_flight: Final[int]
    cancelled: Final[bool]
    allocates: Final[bool]
    def close(self) -> None: ...
