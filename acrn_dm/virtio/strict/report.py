"""The report of broken clauses: said once each in the log, and to whoever listens each time."""

import logging
from collections.abc import Callable

import attrs

from acrn_dm.base.records import define, frozen
from acrn_dm.virtio.strict.clauses import CLAUSES, Clause

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Violation:
    """A clause that a driver broke. *queue* is its index, None for what is about the whole device."""

    device: str
    clause: Clause
    detail: str
    queue: int | None = None

    def __str__(self) -> str:
        where = self.device if self.queue is None else f"{self.device} queue {self.queue}"
        rule = f"{self.clause.id} (virtio 1.4, {self.clause.section}: {self.clause.level} {self.clause.text})"
        return f"{where}: {self.detail}: {rule}"


@define(eq=False)
class StrictReport:
    """The report of one device's driver. Called on control threads and I/O loops."""

    device: str
    listener: Callable[[Violation], object] = lambda violation: None
    _said: set[str] = attrs.field(factory=set, init=False)

    def broken(self, clause: str, detail: str, queue: int | None = None) -> None:
        """The driver broke the clause of this id."""
        violation = Violation(device=self.device, clause=CLAUSES[clause], detail=detail, queue=queue)
        if clause not in self._said:
            self._said.add(clause)
            log.warning("strict: %s", violation)
        self.listener(violation)
