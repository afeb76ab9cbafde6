"""The registers of one queue as its driver wrote them."""

from acrn_dm.base.records import define
from acrn_dm.virtio.defs import NO_VECTOR


@define(eq=False)
class QueueConfig:
    """The registers of one queue, as the driver wrote them. Addresses are guest physical; *pfn* is the legacy way to
    say all three.
    """

    index: int
    max_size: int
    size: int = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    pfn: int = 0
    vector: int = NO_VECTOR
    enabled: bool = False
    renewable: bool = False  # was reset alone: may be set up again while the device runs

    def reset(self) -> None:
        """Back to power-on; the size is the maximum again (4.1.4.3)."""
        self.size = self.max_size
        self.desc = self.avail = self.used = self.pfn = 0
        self.vector = NO_VECTOR
        self.enabled = self.renewable = False
