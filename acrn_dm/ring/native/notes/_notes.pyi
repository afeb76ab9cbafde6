from collections.abc import Sequence
from typing import final

from typing_extensions import disjoint_base

from acrn_dm._fastring import PackedRing, SplitRing

@disjoint_base
class RingNotes:
    below: object
    def __new__(
        cls, ring: SplitRing | PackedRing, region: memoryview, *, counter: int, **rest: object
    ) -> RingNotes: ...
    def close(self) -> None: ...

@final
class SplitNotes(RingNotes):
    def __init__(self, ring: SplitRing, region: memoryview, *, counter: int, again: Sequence[int]) -> None: ...

@final
class PackedNotes(RingNotes):
    def __init__(
        self,
        ring: PackedRing,
        region: memoryview,
        *,
        counter: int,
        links: Sequence[int],
        free_head: int,
        again: Sequence[tuple[int, int, int, Sequence[tuple[int, int, int, int]]]],
    ) -> None: ...
