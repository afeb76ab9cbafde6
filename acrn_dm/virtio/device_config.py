"""Device-specific configuration space between the driver's accesses and the device's two methods.

Any offset and width is legal for the driver (4.1.5.1.3.1 demands it of legacy devices): what lies past the end reads as
zero and is dropped when written. A device that raises costs its own driver a reset and nothing else.
"""

from collections.abc import Callable

from acrn_dm.virtio.backend import Backend
from acrn_dm.virtio.core import VirtioCore


class DeviceConfig:
    """Bounds every access by *size*, ``config_size`` as it was when the device was built. The backend answers: it may
    know better than the device.
    """

    def __init__(self, size: int, backend: Callable[[], Backend], core: VirtioCore) -> None:
        self.size = size
        self._backend = backend
        self._core = core

    def read(self, offset: int, size: int) -> int:
        """Read *size* bytes at *offset*, little-endian."""
        length = self._clip(offset, size)
        if length == 0:
            return 0
        self._core.config_was_read()
        try:
            data = self._backend().read_config(offset, length)
        except Exception as e:
            self._core.needs_reset(e)
            return 0
        return int.from_bytes(data[:length], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write *size* bytes at *offset*, little-endian."""
        length = self._clip(offset, size)
        if length == 0:
            return
        try:
            self._backend().write_config(offset, value.to_bytes(size, "little")[:length])
        except Exception as e:
            self._core.needs_reset(e)

    def _clip(self, offset: int, size: int) -> int:
        return max(0, min(size, self.size - offset))
