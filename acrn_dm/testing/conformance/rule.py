"""Rules: functions that judge one device against rows of the table.

::

    @rule("split.used_notify.flag0", over=("interrupts",))
    def interrupts_when_asked(bench: Bench) -> None:
        ...

A rule raises AssertionError where the device breaks it, and ``NotApplicable`` where there is nothing to judge. It gets
a ``Bench`` of its own for each setup it asks for.
"""

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.setup import AXES
from acrn_dm.testing.conformance.table import KINDS, PCI, NotApplicable, Row, rows

ANY = "any"  # the kind of every function, virtio or not

Check = Callable[[Bench], None]


@attrs.frozen(kw_only=True)
class Rule:
    """A check and the rows it decides. *kinds*: whose (none: of every virtio device, ``pci``: of functions that are
    none, ``any``: of both); *over*: the axes of ``Setup`` it has to be seen along; *pinned*: values it needs of them;
    *needs*: names of features that have to be offered.
    """

    ids: tuple[str, ...]
    check: Check
    kinds: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    pinned: Mapping[str, str] = attrs.field(factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The ids, as a test is called."""
        return "+".join(self.ids)

    @property
    def rows(self) -> list[Row]:
        """The rows it decides."""
        return [rows()[row] for row in self.ids]

    def is_for(self, kind: str) -> bool:
        """Whether it judges devices of *kind*: a name of ``table.KINDS``, ``pci``, or nothing for other virtio ones."""
        return ANY in self.kinds or kind in self.kinds or (not self.kinds and kind != PCI)


def rule(
    *ids: str,
    kinds: Iterable[str] = (),
    over: Iterable[str] = (),
    transport: str | None = None,
    interrupts: str | None = None,
    ring: str | None = None,
    needs: Iterable[str] = (),
) -> Callable[[Check], Rule]:
    """Make the function below a ``Rule`` of the rows *ids*. Raises ValueError for an id, a kind or an axis that is not
    there.
    """
    unknown = [row for row in ids if row not in rows()]
    unknown += [kind for kind in kinds if kind not in (*KINDS.values(), PCI, ANY)] + [a for a in over if a not in AXES]
    if unknown or not ids:
        raise ValueError(f"no such row, kind or axis: {', '.join(unknown) or 'none given'}")
    given = {"transport": transport, "interrupts": interrupts, "ring": ring}
    pinned = {axis: value for axis, value in given.items() if value is not None}

    def make(check: Check) -> Rule:
        return Rule(ids=ids, check=check, kinds=tuple(kinds), over=tuple(over), pinned=pinned, needs=tuple(needs))

    return make


def rules_of(*modules: ModuleType) -> tuple[Rule, ...]:
    """The rules that *modules* define, in their order."""
    return tuple(value for module in modules for value in vars(module).values() if isinstance(value, Rule))


__all__ = ("ANY", "Check", "NotApplicable", "Rule", "rule", "rules_of")
