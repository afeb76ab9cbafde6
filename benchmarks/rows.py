"""Rows of ``build/bench.json``: a figure of ours beside a peer's, measured by turns in one run.

Every ``benchmarks/bench_*.py`` has ``rows(quick)``, which yields ``Row``, or ``Skipped`` for a peer that is not there.
"""

import statistics
from collections.abc import Callable, Iterable

import attrs

Measure = Callable[[], float]
ROUNDS, QUICK_ROUNDS = 9, 3


class PeerMissing(Exception):
    """A peer that can't be run here; its text is the reason, in one line."""


@attrs.frozen
class Row:
    """One figure in *unit*, and that of a peer where there is one, else None.

    *ratio* is ours / peer in that unit, so of a time less is better and of a rate more. *spread* is how far the middle
    half of the rounds lies apart, as a fraction: of the rounds' ratios where there is a peer, else of our figures.
    *at_least* and *at_most* are what the ratio (without a peer: the figure) has to keep.
    """

    name: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    peer_version: str = ""
    ratio: float | None = None
    spread: float = 0.0
    at_least: float | None = attrs.field(default=None, kw_only=True)
    at_most: float | None = attrs.field(default=None, kw_only=True)

    @property
    def kept(self) -> bool:
        """Whether the limits are kept; true where there is none."""
        judged = self.ours if self.ratio is None else self.ratio
        high_enough = self.at_least is None or judged >= self.at_least
        return high_enough and (self.at_most is None or judged <= self.at_most)


@attrs.frozen
class Skipped:
    """A row that could not be measured here, and why."""

    name: str
    reason: str


Entry = Row | Skipped


@attrs.frozen(kw_only=True)
class Alternated:
    """The rounds of two measurements that took turns, in the order they were run."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours / peer, round by round."""
        return tuple(one / other for one, other in zip(self.ours, self.peer, strict=True))

    def row(
        self,
        name: str,
        unit: str,
        peer_name: str,
        peer_version: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Row:
        """The row of medians. Its ratio is the median of the rounds' ratios: a machine's speed drifts between rounds by
        more than within one.
        """
        return Row(
            name,
            unit,
            statistics.median(self.ours),
            statistics.median(self.peer),
            peer_name,
            peer_version,
            statistics.median(self.ratios),
            spread(self.ratios),
            at_least=at_least,
            at_most=at_most,
        )


def alternate(ours: Measure, peer: Measure, rounds: int = ROUNDS) -> Alternated:
    """Both measured *rounds* times, by turns: who goes first changes each round. ValueError for less than one round."""
    if rounds < 1:
        raise ValueError(f"{rounds} rounds measure nothing")
    found: tuple[list[float], list[float]] = ([], [])
    for n in range(rounds):
        order = (0, 1) if n % 2 == 0 else (1, 0)
        for which in order:
            found[which].append((ours, peer)[which]())
    return Alternated(ours=tuple(found[0]), peer=tuple(found[1]))


def spread(figures: Iterable[float]) -> float:
    """How far the middle half of *figures* lies apart, as a fraction of their median; 0.0 of a single one."""
    known = sorted(figures)
    if len(known) == 1:
        return 0.0
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return (high - low) / abs(middle) if middle else 0.0


def alone(name: str, unit: str, figures: Iterable[float], *, at_most: float | None = None) -> Row:
    """The row of a figure that has no peer: the median of *figures*."""
    known = tuple(figures)
    return Row(name, unit, statistics.median(known), spread=spread(known), at_most=at_most)


def table(entries: Iterable[Entry]) -> list[str]:
    """Lines of the printed table, a row each; a limit that is not kept is marked."""
    lines = [f"{'':48}{'unit':>12}{'ours':>14}{'peer':>14}{'ratio':>8}{'spread':>8}  beside"]
    for entry in entries:
        if isinstance(entry, Skipped):
            lines.append(f"{entry.name:48}  skipped: {entry.reason}")
        else:
            lines.append(_line(entry))
    return lines


def _line(row: Row) -> str:
    peer = f"{'':22}" if row.peer is None else f"{row.peer:14.4g}{row.ratio:8.2f}"
    wanted = [f"{sign} {limit:g}" for sign, limit in ((">=", row.at_least), ("<=", row.at_most)) if limit is not None]
    verdict = "" if not wanted else f"  [{', '.join(wanted)}: {'kept' if row.kept else 'MISSED'}]"
    beside = f"{row.peer_name} {row.peer_version}".strip()
    return f"{row.name:48}{row.unit:>12}{row.ours:14.4g}{peer}{row.spread:8.1%}  {beside}{verdict}".rstrip()
