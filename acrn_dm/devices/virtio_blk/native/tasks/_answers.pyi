from typing import Final

from typing_extensions import disjoint_base

from acrn_dm._fastring import Chain, SplitRing
from acrn_dm.devices.virtio_blk.request import Request

@disjoint_base
class BlkAnswers:
    in_flight: Final[int]
    def __new__(cls, ring: SplitRing, *args: object, **kwargs: object) -> BlkAnswers: ...
    def take_handed(self, ring: SplitRing) -> list[tuple[Chain, Request, int]]: ...
