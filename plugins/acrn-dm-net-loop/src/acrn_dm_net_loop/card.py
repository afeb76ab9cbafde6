"""The packet driver ``loop``: what a card sends comes back to it, or to the card that it is joined with by name."""

import threading
from collections.abc import Sequence
from typing import Any

import attrs

from acrn_dm import ConfigError, DriverContext, PacketDriver, PacketDriverType, PacketPort, hookimpl
from acrn_dm_net_loop.line import Line, Options

PATIENCE_S = 1.0  # a frame waits that long for a card that is full, and is lost then


@attrs.define(eq=False)
class Cables:
    """The cards that are joined, by the machine's name and theirs."""

    _ends: dict[tuple[str, str], list["LoopCard"]] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def plug(self, card: "LoopCard", name: tuple[str, str]) -> Sequence["LoopCard"]:
        """Put *card* to the others of its name; returns all of them. Raises ConfigError for a third one."""
        with self._lock:
            ends = self._ends.setdefault(name, [])
            if len(ends) == 2:
                raise ConfigError(f"two cards are joined by the name {name[1]!r} already", option=card.device)
            ends.append(card)
            return tuple(ends)

    def unplug(self, card: "LoopCard", name: tuple[str, str]) -> bool:
        """Take it away; false if it was not there."""
        with self._lock:
            ends = self._ends.get(name, [])
            if card not in ends:
                return False
            ends.remove(card)
            if not ends:
                del self._ends[name]
            return True

    def ends(self, name: tuple[str, str]) -> Sequence["LoopCard"]:
        """The cards of a name."""
        with self._lock:
            return tuple(self._ends.get(name, ()))

    def peer(self, card: "LoopCard", name: tuple[str, str]) -> "LoopCard | None":
        """The other one, if there is one."""
        with self._lock:
            return next((other for other in self._ends.get(name, ()) if other is not card), None)


CABLES = Cables()


class LoopCard(PacketDriver):
    """A card on a loop, or one end of a cable: then its link is up while the other end is there."""

    def __init__(self, options: Options, context: DriverContext) -> None:
        self.device = context.device
        self.options = options
        self.full = 0  # frames that were lost because a card was full
        self._name = (context.machine, options.name)
        self._port: PacketPort | None = None
        self._line = Line(options, self._deliver)

    def open(self, port: PacketPort, pairs: int) -> None:
        """See PacketDriver. Raises ConfigError."""
        self._port = port
        if not self.options.name:
            return
        ends = CABLES.plug(self, self._name)
        for end in ends:
            end.tell_link(len(ends) == 2)

    def send(self, frame: bytes, pair: int) -> None:
        """See PacketDriver."""
        self._line.send(frame, pair)

    @property
    def lost(self) -> int:
        """Frames that got lost by chance."""
        return self._line.lost

    def tell_link(self, up: bool) -> None:
        """Whether the other end is there."""
        if self._port is not None:
            self._port.link(up)

    def control(self, text: str) -> None:
        """``loss=0.1`` and so on: other options from now on; those that are not named stay."""
        known = {field.name: field for field in attrs.fields(Options) if field.name not in ("name", "seed")}
        changes: dict[str, Any] = {}
        for word in text.split(","):
            key, _, value = word.strip().partition("=")
            if key not in known:
                raise ValueError(f"expected some of {', '.join(f'{name}=' for name in known)}")
            changes[key] = float(value)
        self._line.options = attrs.evolve(self._line.options, **changes)

    def close(self) -> None:
        """See PacketDriver."""
        if CABLES.unplug(self, self._name):
            for peer in CABLES.ends(self._name):
                peer.tell_link(False)
        self._line.close()
        self._port = None

    def arrive(self, frame: bytes, pair: int) -> None:
        """Hand *frame* to the card; it is lost if the card stays full."""
        port = self._port
        while port is not None and not port.receive(frame, pair=pair):
            if not port.wait(PATIENCE_S, pair=pair):
                self.full += 1
                return

    def _deliver(self, frame: bytes, pair: int) -> None:
        there = CABLES.peer(self, self._name) if self.options.name else self
        if there is not None:
            there.arrive(frame, pair)


@hookimpl
def acrn_dm_packet_driver_types() -> list[PacketDriverType]:
    """Offer ``loop``."""
    summary = "frames come back, or go to the card of the same name; with loss, reordering, duplicates and delay"
    return [PacketDriverType(name="loop", summary=summary, config=Options, create=LoopCard)]
