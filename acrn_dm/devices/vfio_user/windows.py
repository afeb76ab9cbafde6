"""Windows: stretches of a function's BARs that are a file of its server's, which the guest reaches by itself.

The hypervisor has them as memory where the guest has put the BAR, so no access there is a message, and nothing says
that there was one. They are there only while nobody has to see accesses (``follow``); else, and where the hypervisor
takes no memory while the guest runs, all are messages. A server that makes its file shorter has broken the protocol:
zeros stand in its place then (``_shortened``), until the connection has ended.
"""

import logging
import mmap
import os
import stat
from collections.abc import Callable, Iterable, Mapping

import attrs

from acrn_dm.backends.wire.message import PeerError, close_all
from acrn_dm.base.errors import HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.process import _shortened
from acrn_dm.base.process.core_dumps import leave_out
from acrn_dm.base.records import define, frozen
from acrn_dm.devices.vfio_user.areas import Area, mapped_areas, without
from acrn_dm.devices.vfio_user.capabilities import TablePlace
from acrn_dm.devices.vfio_user.description import ask_region
from acrn_dm.devices.vfio_user.link import Link
from acrn_dm.memory.guest_memory import MemoryRegion
from acrn_dm.pci.bar import Bar
from acrn_dm.pci.eventfds import make_eventfd

log = logging.getLogger(__name__)

NOWHERE = -1

Place = Callable[[MemoryRegion, bool], None]  # ``Resources.window``


@frozen(kw_only=True, eq=False)
class _Mapped:
    """An area as this process has mapped it."""

    bar: int
    area: Area
    file: int
    mapping: mmap.mmap = attrs.field(repr=False)
    watch: int

    def at(self, gpa: int) -> MemoryRegion:
        """The window that the guest finds at *gpa*."""
        return MemoryRegion(
            gpa=gpa,
            size=self.area.size,
            fd=self.file,
            mapping=self.mapping,
            owned=True,
            offset=self.area.at,
            watched=True,
        )

    def close(self) -> None:
        _shortened.unwatch(self.watch)
        self.mapping.close()


@define(eq=False)
class _Window:
    """A window of the guest's, or none for the moment."""

    mapped: _Mapped
    there: MemoryRegion | None = None  # what the guest has
    refused: int = NOWHERE  # where the hypervisor has not taken it


class Windows:
    """The windows of the function with *bars*, whose server *link* leads to. *shortened* is called on *loop* when a
    server has taken a part of a file away. Control threads, under the function's lock.
    """

    def __init__(
        self, link: Link, bars: Mapping[int, Bar], place: Place, loop: IoLoop, shortened: Callable[[], None]
    ) -> None:
        self._link = link
        self._bars = bars
        self._place = place
        self._loop = loop
        self._windows: list[_Window] = []
        self._files: list[int] = []
        self._shortened = make_eventfd()
        loop.add(self._shortened, shortened, eventfd=True)

    @property
    def any(self) -> bool:
        """Whether the guest has any now: what is sent behind it need not be seen in this order."""
        return any(window.there is not None for window in self._windows)

    @property
    def taken(self) -> bool:
        """Whether there are any files."""
        return bool(self._files)

    def take(self, sizes: Mapping[int, int], kept: Iterable[TablePlace]) -> None:
        """Map what the server offers of its BARs, of these *sizes*, but for the pages of *kept*, which are answered
        here. Raises HostError.
        """
        self.forget()
        for index, size in sizes.items():
            if self._bars[index].is_io:
                continue
            brought: list[int] = []
            try:
                areas = mapped_areas(ask_region(self._link, index, brought), size)
                for stretch in kept:
                    areas = without(areas, stretch.offset, stretch.size) if stretch.bar == index else areas
                if len(brought) > 1:
                    raise PeerError(f"region {index} brought {len(brought)} descriptors")
                if brought and areas:
                    self._files.append(brought.pop())
                    self._map(index, areas, self._files[-1])
            finally:
                close_all(brought)

    def follow(self, wanted: bool) -> None:
        """Let the guest have them where its BARs are, if they are *wanted*."""
        places = [(window, self._gpa(window.mapped) if wanted else NOWHERE) for window in self._windows]
        for window, gpa in places:
            if window.there is not None and window.there.gpa != gpa:
                self._withdraw(window)
        for window, gpa in places:
            if gpa == NOWHERE:
                window.refused = NOWHERE
            elif window.there is None and window.refused != gpa:
                self._give(window, gpa)

    def forget(self) -> None:
        """The server's files are nobody's any more. Idempotent."""
        self.follow(False)
        while self._windows:
            self._windows.pop().mapped.close()
        close_all(self._files)

    def close(self) -> None:
        """Forget them for good. Idempotent."""
        self.forget()
        fd, self._shortened = self._shortened, -1
        if fd >= 0:
            self._loop.remove(fd)
            os.close(fd)

    def _gpa(self, mapped: _Mapped) -> int:
        bar = self._bars[mapped.bar]
        return bar.base + mapped.area.offset if bar.mapped and not bar.base % mmap.PAGESIZE else NOWHERE

    def _give(self, window: _Window, gpa: int) -> None:
        region = window.mapped.at(gpa)
        try:
            self._place(region, True)
        except HostError as e:
            window.refused = gpa
            log.info("registers at %#x stay messages: %s", gpa, e)
        else:
            window.there = region

    def _withdraw(self, window: _Window) -> None:
        region, window.there = window.there, None
        if region is not None:
            try:
                self._place(region, False)
            except HostError as e:
                log.warning("registers at %#x: %s", region.gpa, e)

    def _map(self, bar: int, areas: Iterable[Area], file: int) -> None:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            log.info("BAR %d stays messages: what it is in is no file", bar)
            return
        for area in areas:
            try:
                mapping = mmap.mmap(file, area.size, mmap.MAP_SHARED, offset=area.at)  # ValueError past the file's end
                leave_out(mapping)
                watch = _shortened.watch(mapping, self._shortened)
            except (OSError, OverflowError, ValueError) as e:
                log.info("BAR %d stays messages: %s", bar, e)
                continue
            mapped = _Mapped(bar=bar, area=area, file=file, mapping=mapping, watch=watch)
            self._windows.append(_Window(mapped))
