"""The log of pages written, of a client that moves its guest elsewhere (LOG_SHMFD): a bit for each page of 4 KiB."""

from acrn_dm.backends.wire.message import Message, PeerError
from acrn_dm.backends.wire.payload import LOG
from acrn_dm.export.vhost_user.foreign import Foreign, map_file

PAGE_SHIFT = 12  # VHOST_LOG_PAGE
MAX_SIZE = 1 << 40


class WriteLog:
    """The log that the client handed over last, or none. The eventfd *shortened* tells when its file was."""

    def __init__(self, shortened: int) -> None:
        self._shortened = shortened
        self._size = 0
        self._log: Foreign | None = None
        self._old: list[Foreign] = []
        self._views: list[memoryview] = []

    def replace(self, message: Message) -> None:
        """SET_LOG_BASE. The one before stays until ``forget_old``. Raises PeerError, and then nothing has changed."""
        size, offset = message.fields(LOG)
        if not 0 < size <= MAX_SIZE or offset > MAX_SIZE:
            raise PeerError(f"a log of {size} bytes at {offset}")
        log = map_file(message.take_fd(), offset, size, self._shortened, what=f"a log of {size} bytes at {offset}")
        if self._log is not None:
            self._old.append(self._log)
        self._log, self._size = log, size

    def bits(self, end: int) -> memoryview | None:
        """The part of it for memory up to guest address *end*; None where there is no log. Raises PeerError for one
        that is too short.
        """
        if self._log is None:
            return None
        pages = -(-end >> PAGE_SHIFT)
        length = (pages + 7) // 8
        if length > self._size:
            raise PeerError(f"a log of {self._size} bytes for memory up to {end:#x}")
        first = self._log.first
        with memoryview(self._log.mapping) as whole:
            self._views.append(whole[first : first + length])
        return self._views[-1]

    def forget_old(self) -> None:
        """Nobody writes a log before the last one. Idempotent."""
        kept = []
        for view in self._views:
            try:
                view.release()
            except BufferError:  # a ring logs there
                kept.append(view)
        self._views = kept
        old, self._old = self._old, []
        for log in old:
            log.close()

    def clear(self) -> None:
        """Forget all. Only while nothing is logged. Idempotent."""
        if self._log is not None:
            self._old.append(self._log)
        self._log = None
        self.forget_old()
