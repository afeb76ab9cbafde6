"""Log files that are rotated by size."""

import errno
import io
import logging
import logging.handlers
import os

from acrn_dm.base.files import one_user
from acrn_dm.base.files.private_files import open_log


class PrivateFiles(logging.handlers.RotatingFileHandler):
    """Rotated files that are for this user only; none is reached by a symbolic link, or written by another machine."""

    def _open(self) -> io.TextIOWrapper:
        fd = open_log(self.baseFilename)
        if not one_user.take(fd):
            os.close(fd)
            user = one_user.holder(self.baseFilename) or "another process"
            raise OSError(errno.EBUSY, f"in use by {user}", self.baseFilename)
        return open(fd, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is no reason to stop, nor to tell stderr with each record; the console has them, too."""
