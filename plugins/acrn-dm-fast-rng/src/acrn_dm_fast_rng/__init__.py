"""virtio-fast-rng: the entropy device (virtio 5.4), whose queue is served in C: a sample of a plane.

``_plane.pyx`` has the C side. ``handle_queue`` does the same in Python, for ``strict=on`` and wherever else no plane is
used.
"""

import os
from collections.abc import Sequence

import attrs

from acrn_dm import DeviceContext, DeviceType, Plane, Queue, VirtioDevice, hookimpl

try:
    from acrn_dm_fast_rng._plane import RngPlane
except (ImportError, ValueError) as e:  # ValueError: it was built against another version of acrn-dm
    raise ImportError(f"{e}; the extension module is built by: pip install --no-build-isolation -e .") from e

CHUNK = 4096  # bytes for one buffer at most, as in C
BATCH = 32


@attrs.frozen(kw_only=True)
class FastRngConfig:
    """No options but those of every device."""


class FastRngDevice(VirtioDevice):
    """The kernel's random numbers for the guest."""

    device_id = 4
    pci_class = 0x100000
    transitional = True
    backend_text = "getrandom"

    def __init__(self, config: FastRngConfig, context: DeviceContext) -> None:
        super().__init__(context)

    def plane(self, features: int, queue: Queue) -> Plane:
        """A plane for the one queue."""
        return RngPlane()

    def handle_queue(self, queue: Queue) -> None:
        """Fill buffers where no plane does."""
        for chain in queue.pop_batch(BATCH):
            chain.write(os.getrandom(min(chain.writable_bytes, CHUNK), os.GRND_NONBLOCK))
            queue.push(chain)


@hookimpl
def acrn_dm_device_types() -> Sequence[DeviceType]:
    """Offer ``virtio-fast-rng``."""
    summary = "entropy for the guest, its queue served in C"
    return [DeviceType(name="virtio-fast-rng", summary=summary, config=FastRngConfig, create=FastRngDevice)]
