"""A timer of a device: armed at most once at a time, on the machine's main loop, by code under the device's lock."""

from collections.abc import Callable

from acrn_dm.base.events.ioloop import IoLoop, Timer


class OneShot:
    """The timer: calls *callback* on the loop's thread, without any lock. Without a loop (before ``attach``) it never
    does.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self.loop: IoLoop | None = None
        self._callback = callback
        self._timer: Timer | None = None

    def arm(self, seconds: float) -> None:
        """Fire in *seconds*, unless it is armed already."""
        if self._timer is None and self.loop is not None:
            self._timer = self.loop.call_later(seconds, self._fire)

    def cancel(self) -> None:
        """Do not fire. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Never fire again."""
        self.loop = None
        self.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._callback()
