"""The lines as the driver set them: direction, value, interrupt, and what became of the interrupts (5.18.6, 5.18.7)."""

import enum
import logging
from collections.abc import Callable
from typing import TypeVar

import attrs

from acrn_dm_gpio.bank import Bank, Direction

log = logging.getLogger(__name__)


class Irq(enum.IntEnum):
    """VIRTIO_GPIO_IRQ_TYPE_*."""

    NONE = 0
    RISING = 1
    FALLING = 2
    BOTH = 3
    HIGH = 4
    LOW = 8


EDGES = {Irq.RISING: (1,), Irq.FALLING: (0,), Irq.BOTH: (0, 1)}  # levels that follow the edge
LEVELS = {Irq.HIGH: 1, Irq.LOW: 0}

E = TypeVar("E", bound=enum.IntEnum)
Answer = Callable[[bool], None]  # returns the driver's buffers: whether there was an interrupt


class Refused(ValueError):
    """The error of a request that the driver may not make."""


@attrs.define(eq=False)
class Line:
    """One line. *unmasked* is how to tell the driver of an interrupt: there while it has its buffers queued."""

    direction: Direction = Direction.NONE
    value: int = 0
    irq: Irq = Irq.NONE
    latched: bool = False
    unmasked: Answer | None = None


class Lines:
    """All lines of one controller, on *bank*. On the loop's thread. Raises Refused, and OSError of the bank."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._lines: list[Line] = []

    def count(self, number: int) -> None:
        """There are so many."""
        self._lines = [Line() for _ in range(number)]

    def direction(self, line: int) -> int:
        """As it was set last."""
        return self._at(line).direction

    def level(self, line: int) -> int:
        """As it is sensed."""
        self._at(line)
        return self._bank.level(line)

    def set_direction(self, line: int, value: int) -> None:
        """Begin to use a line, or give it up with everything that was said of it (5.18.6.8)."""
        it = self._at(line)
        direction = _member(Direction, value)
        if direction is Direction.OUT and it.irq is not Irq.NONE:
            raise Refused("a line that interrupts is no output")
        if direction is Direction.NONE:
            self._forget(line)
            return
        self._bank.configure(line, direction, it.value, watch=it.irq is not Irq.NONE)
        it.direction = direction

    def set_value(self, line: int, value: int) -> None:
        """Drive an output, or say with which value it begins to be one."""
        it = self._at(line)
        if value not in (0, 1):
            raise Refused(f"value {value}")
        if it.direction is Direction.OUT:
            self._bank.drive(line, value)
        it.value = value

    def set_irq(self, line: int, value: int) -> None:
        """Enable an interrupt, which stays masked until the driver has queued buffers, or disable it."""
        it = self._at(line)
        irq = _member(Irq, value)
        if it.direction is Direction.OUT and irq is not Irq.NONE:
            raise Refused("an output does not interrupt")
        watched = irq is not Irq.NONE
        if watched != (it.irq is not Irq.NONE):
            direction = Direction.IN if watched else it.direction
            self._bank.configure(line, direction, it.value, watch=watched)
        it.irq = irq
        it.latched = False
        if irq is Irq.NONE:
            self._mask(it, valid=False)
        else:
            self._deliver(line)

    def unmask(self, line: int, answer: Answer) -> None:
        """The driver has queued buffers for *line*, and hears of the next interrupt by *answer*, once."""
        if not 0 <= line < len(self._lines) or self._lines[line].irq is Irq.NONE or self._lines[line].unmasked:
            answer(False)
            return
        self._lines[line].unmasked = answer
        self._deliver(line)

    def changed(self, line: int, level: int) -> None:
        """The bank has seen another level."""
        it = self._lines[line]
        if level in EDGES.get(it.irq, ()):
            it.latched = True
        self._deliver(line)

    def forget_buffers(self) -> None:
        """Whoever queued them is gone, or stands still: then they come again."""
        for it in self._lines:
            it.unmasked = None

    def forget(self) -> None:
        """Everything that the driver has said. Raises nothing."""
        self.forget_buffers()
        for line, it in enumerate(self._lines):
            if it != Line():
                try:
                    self._forget(line)
                except OSError:
                    self._lines[line] = Line()

    def _at(self, line: int) -> Line:
        if line >= len(self._lines):
            raise Refused(f"line {line}")
        return self._lines[line]

    def _forget(self, line: int) -> None:
        it = self._lines[line]
        self._mask(it, valid=False)
        self._lines[line] = Line()
        if it.direction is not Direction.NONE or it.irq is not Irq.NONE:
            self._bank.configure(line, Direction.NONE, 0, watch=False)

    def _deliver(self, line: int) -> None:
        """Tell the driver of an interrupt that it waits for. A level counts as it is now: it is never kept."""
        it = self._lines[line]
        if it.unmasked is None:
            return
        if it.irq in LEVELS:
            active = self._is_at(line, LEVELS[it.irq])
        else:
            active, it.latched = it.latched, False
        if active:
            self._mask(it, valid=True)

    def _is_at(self, line: int, level: int) -> bool:
        try:
            return self._bank.level(line) == level
        except OSError as e:
            log.warning("line %d can't be read: %s", line, e.strerror)
            return False

    def _mask(self, it: Line, *, valid: bool) -> None:
        answer, it.unmasked = it.unmasked, None
        if answer is not None:
            answer(valid)


def _member(kind: type[E], value: int) -> E:
    try:
        return kind(value)
    except ValueError:
        raise Refused(f"{kind.__name__.lower()} {value}") from None
