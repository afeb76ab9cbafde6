"""The line between two ends: loses, repeats, delays and reorders frames, as chance and its options say."""

import heapq
import random
import threading
import time
from collections.abc import Callable

import attrs

from acrn_dm import option

Deliver = Callable[[bytes, int], object]


def _share(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} {value:g}: expected 0 to 1")


def _time(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 <= value <= 3_600_000:
        raise ValueError(f"{attribute.name} {value:g}: expected 0 to 3600000 milliseconds")


@attrs.frozen(kw_only=True)
class Options:
    """The options of a card's line."""

    name: str = option(default="", help="Joins two cards of this machine that have it; a card without hears itself.")
    loss: float = option(default=0.0, validator=_share, help="Share of the frames that get lost, 0 to 1.")
    duplicate: float = option(default=0.0, validator=_share, help="Share of the frames that come twice.")
    reorder: float = option(default=0.0, validator=_share, help="Share of the frames that the next one overtakes.")
    delay: float = option(default=0.0, validator=_time, help="Milliseconds that each frame takes.")
    jitter: float = option(default=0.0, validator=_time, help="Milliseconds more, at most, by chance; keeps no order.")
    seed: int = option(default=0, help="Of chance: the same frames in the same order have the same fate.")


@attrs.define(eq=False)
class Line:
    """One direction; *deliver* gets what arrives, and how it was sent. ``send`` is called by one thread at a time."""

    options: Options
    deliver: Deliver
    lost: int = attrs.field(default=0, init=False)
    _dice: random.Random = attrs.field(init=False, repr=False)
    _overtaken: tuple[bytes, int] | None = attrs.field(default=None, init=False)
    _under_way: list[tuple[float, int, bytes, int]] = attrs.field(factory=list, init=False)
    _count: int = attrs.field(default=0, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _changed: threading.Condition = attrs.field(factory=threading.Condition, init=False, repr=False)

    @_dice.default
    def _seeded(self) -> random.Random:
        return random.Random(self.options.seed)

    def send(self, frame: bytes, pair: int) -> None:
        """Let *frame* go its way."""
        with self._changed:
            frames = self._fate(frame, pair)
        for one in frames:
            self._go(*one)

    def close(self) -> None:
        """What is under way is lost."""
        with self._changed:
            self._closed = True
            self._under_way.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _fate(self, frame: bytes, pair: int) -> list[tuple[bytes, int]]:
        """What goes on its way now that *frame* is sent."""
        options = self.options
        if self._chance(options.loss):
            self.lost += 1
            return []
        frames = [(frame, pair)] * (2 if self._chance(options.duplicate) else 1)
        before, self._overtaken = self._overtaken, None
        if before is None and self._chance(options.reorder):
            self._overtaken = frames.pop()
        return frames if before is None else [*frames, before]

    def _chance(self, share: float) -> bool:
        return share > 0 and self._dice.random() < share

    def _go(self, frame: bytes, pair: int) -> None:
        if not self.options.delay and not self.options.jitter:
            self.deliver(frame, pair)
            return
        with self._changed:
            late = self.options.delay + self.options.jitter * self._dice.random()
            self._count += 1
            heapq.heappush(self._under_way, (time.monotonic() + late / 1000, self._count, frame, pair))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="net-loop", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._under_way or self._under_way[0][0] > time.monotonic()):
                    wait = self._under_way[0][0] - time.monotonic() if self._under_way else None
                    self._changed.wait(wait)
                if self._closed:
                    return
                _, _, frame, pair = heapq.heappop(self._under_way)
            self.deliver(frame, pair)
