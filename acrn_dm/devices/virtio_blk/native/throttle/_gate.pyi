from typing import Final

from typing_extensions import disjoint_base

from acrn_dm.devices.virtio_blk.native.throttle._throttle import BlkThrottle

@disjoint_base
class BlkGate:
    throttle: Final[BlkThrottle]
    waiting: Final[int]
    timer_fd: Final[int]
    def __new__(cls, throttle: BlkThrottle) -> BlkGate: ...
    def lift(self) -> None: ...
    def drop(self) -> None: ...
    def close(self) -> None: ...
