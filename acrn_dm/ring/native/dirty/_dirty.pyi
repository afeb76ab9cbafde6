from typing import final

from typing_extensions import Buffer

from acrn_dm._fastring import PackedRing, SplitRing

@final
class DirtyLog:
    below: object
    def __new__(cls, ring: SplitRing | PackedRing, bits: Buffer, *, used: int, desc: int) -> DirtyLog: ...
    def replace(self, bits: Buffer, *, used: int, desc: int) -> None: ...
    def close(self) -> None: ...

def log_writes(ring: SplitRing | PackedRing, bits: Buffer | None, *, used: int, desc: int) -> None: ...
