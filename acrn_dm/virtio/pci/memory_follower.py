"""A virtio function in guest memory that changes: its rings stop for each change, and go on in what is there then."""

import threading

from acrn_dm.base.errors import GuestError
from acrn_dm.virtio.core import VirtioCore
from acrn_dm.virtio.dataplane import DataPlane


class MemoryFollower:
    """The ``MapUser`` of one function, whose *lock*, *core* and *data_plane* these are.

    Rings whose memory is gone wait for it to come back, for what moves is taken away first; the driver that kicks one
    meanwhile is asked for a reset, as one whose buffers are gone, or whose requests the host does not finish in time.
    """

    def __init__(self, lock: threading.RLock, core: VirtioCore, data_plane: DataPlane) -> None:
        self._lock = lock
        self._core = core
        self._data_plane = data_plane

    @property
    def busy(self) -> bool:
        """As the backend says."""
        return self._data_plane.busy

    def leave_map(self) -> None:
        """As for a pause: what was taken from the rings is answered first."""
        with self._lock:
            self._core.attempt(self._data_plane.pause)

    def enter_map(self) -> None:
        """Where the rings were; each is looked up anew."""
        with self._lock:
            if self._core.running:
                self._core.attempt(self._resume)

    def _resume(self) -> None:
        try:
            self._data_plane.resume()
        except GuestError as e:
            self._data_plane.stay_paused(e)
        except Exception:
            self._data_plane.stop()
            raise
