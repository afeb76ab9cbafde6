"""``--logger_setting`` on top of the logging module: 1 error, 2 warning, 3 notice, 4 info, 5 debug."""

import contextlib
import copy
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from acrn_dm.base.files.private_files import make_folder
from acrn_dm.base.log_text import LineFormatter, escaped
from acrn_dm.base.process.stderr import StderrHandler
from acrn_dm.cli.values import LogSettings

NOTICE = 25  # between logging's INFO and WARNING; one number for plugins that want it
LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: NOTICE, 4: logging.INFO, 5: logging.DEBUG}
LOG_FOLDER = Path("/var/log/acrn-dm")
KMSG = Path("/dev/kmsg")
MAX_LINE = 256  # of a record for the kernel's log; it takes about 1000 bytes
FILE_SIZE = 2 << 20
FILES = 8

log = logging.getLogger(__name__)


class KernelLog(logging.Handler):
    """The kernel's log as a destination: one write each record, as /dev/kmsg wants it."""

    PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (NOTICE, 5), (logging.INFO, 6))  # syslog(3)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, cut to one line; a full or vanished log is no reason to stop."""
        priority = next((p for level, p in self.PRIORITIES if record.levelno >= level), 7)
        text = escaped(" ".join(record.getMessage().split()))[:MAX_LINE]
        with contextlib.suppress(OSError):
            os.write(self._fd, f"<{priority}>acrn_dm: {text}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the device; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


class Bounded(logging.Handler):
    """The bound on logs: *targets* get from one place in the code not more than ``BURST`` records each ``PERIOD_S``.

    A guest can make a device complain as often as it likes, and devices come from many hands. The next record that is
    passed on says how many were left out. Debug records are not counted: who asks for them wants them all.
    """

    BURST = 10
    PERIOD_S = 1.0

    def __init__(self, targets: Sequence[logging.Handler], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._targets = targets
        self._clock = clock
        self._places: dict[tuple[str, int], tuple[float, int]] = {}  # when its period began, records since then

    def emit(self, record: logging.LogRecord) -> None:
        """Pass *record* on, or count it. Called under the handler's lock."""
        if record.levelno > logging.DEBUG:
            place, now = (record.pathname, record.lineno), self._clock()
            begun, count = self._places.get(place, (now, 0))
            if now - begun < self.PERIOD_S:
                self._places[place] = begun, count + 1
                if count >= self.BURST:
                    return
            else:
                self._places[place] = now, 1
                record = _with_note(record, count - self.BURST)
        for target in self._targets:
            if record.levelno >= target.level:
                target.handle(record)


def _with_note(record: logging.LogRecord, left_out: int) -> logging.LogRecord:
    """A copy of *record* that says how many before it were left out."""
    if left_out <= 0:
        return record
    record = copy.copy(record)
    record.msg, record.args = f"{record.getMessage()} ({left_out} more like this before it were left out)", ()
    return record


class DiskFormatter(LineFormatter):
    """Wall-clock and monotonic time before each line."""

    def format(self, record: logging.LogRecord) -> str:
        """``2026-01-31 12:00:00 [1234.567890] LEVEL logger: message``."""
        wall = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{wall} [{time.monotonic():.6f}] {super().format(record)}"


@contextlib.contextmanager
def logging_to(settings: LogSettings, name: str | None, folder: Path | None = None) -> Iterator[None]:
    """Send log records where *settings* say while the block runs; *name* is the VM's, None: only the console.

    The console is stderr: stdout may be the guest's. A destination that can't be opened costs a warning, not the start.
    """
    logging.addLevelName(NOTICE, "NOTICE")
    root = logging.getLogger()
    before = root.level
    handlers = [_console(settings.console)]
    bounded = Bounded(handlers)
    root.addHandler(bounded)
    root.setLevel(min(LEVELS[level] for level in (settings.console, settings.kmsg, settings.disk) if level is not None))
    try:
        if name is not None:
            for handler in _files(settings, name, folder or LOG_FOLDER):
                handlers.append(handler)
        yield
    finally:
        root.removeHandler(bounded)
        for handler in (bounded, *handlers):
            handler.close()
        root.setLevel(before)


def _console(level: int) -> logging.Handler:
    handler = StderrHandler("acrn-dm")
    handler.setLevel(LEVELS[level])
    return handler


def _files(settings: LogSettings, name: str, folder: Path) -> Iterator[logging.Handler]:
    if settings.kmsg is not None:
        try:
            kernel = KernelLog(KMSG)
        except OSError as e:
            log.warning("--logger_setting: kmsg: %s: %s", KMSG, e.strerror)
        else:
            kernel.setLevel(LEVELS[settings.kmsg])
            yield kernel
    if settings.disk is not None:
        try:
            disk = _disk(name, folder)
        except OSError as e:
            log.warning("--logger_setting: disk: %s: %s", e.filename or folder, e.strerror)
        else:
            disk.setLevel(LEVELS[settings.disk])
            yield disk


def _disk(name: str, folder: Path) -> logging.Handler:
    """Eight files of 2 MiB: ``NAME_log_0`` is written to, higher numbers are older."""
    from acrn_dm.base.files.rotated import PrivateFiles  # noqa: PLC0415  # few have a log on disk

    make_folder(folder)
    handler = PrivateFiles(
        folder / f"{name}_log_0", maxBytes=FILE_SIZE, backupCount=FILES - 1, encoding="utf-8", errors="backslashreplace"
    )
    handler.namer = _numbered
    handler.setFormatter(DiskFormatter("%(levelname)s %(name)s: %(message)s"))
    return handler


def _numbered(default: str) -> str:
    """``vm_log_0.3``, the logging module's name for the third older file, as ``vm_log_3``."""
    stem, _, number = default.rpartition(".")
    return f"{stem.removesuffix('0')}{number}"
