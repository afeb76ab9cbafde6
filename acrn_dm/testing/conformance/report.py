"""The report on one device: a verdict for each row that concerns its kind; as text, as JUnit XML and as JSON."""

import collections
import enum
import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs

from acrn_dm.testing.conformance.table import Row


class Outcome(enum.Enum):
    """The outcome of a row. ``not applicable``: nothing to judge in this device, with the reason; ``not implemented``:
    the suite or the product has no such thing, with the reason.
    """

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    NOT_IMPLEMENTED = "not implemented"


@attrs.frozen(kw_only=True)
class Verdict:
    """One row's outcome. *text* is what was seen, setup by setup, or the reason."""

    row: Row
    outcome: Outcome
    text: str = ""

    def __str__(self) -> str:
        row = self.row
        return f"{row.id}  {row.level}: {row.requirement} ({row.section})\n    {self.text}"


@attrs.frozen(kw_only=True)
class Report:
    """The findings of the suite on the device called *name*, which is of *kind*; it took *seconds*."""

    name: str
    kind: str
    verdicts: Sequence[Verdict]
    seconds: float = 0.0

    def having(self, outcome: Outcome) -> list[Verdict]:
        """The verdicts of one outcome, in the order of the table."""
        return [v for v in self.verdicts if v.outcome is outcome]

    @property
    def failed(self) -> list[str]:
        """Ids of the rows that the device breaks."""
        return [v.row.id for v in self.having(Outcome.FAILED)]

    def counts(self) -> Mapping[str, Mapping[Outcome, int]]:
        """Section -> outcome -> rows."""
        sections: dict[str, collections.Counter[Outcome]] = {}
        for verdict in self.verdicts:
            sections.setdefault(verdict.row.section, collections.Counter())[verdict.outcome] += 1
        return sections

    def text(self, *, sections: bool = False) -> str:
        """For people: what failed, each with its requirement and what was seen, then the counts, *sections* too."""
        lines = [str(verdict) for verdict in self.having(Outcome.FAILED)]
        if sections:
            lines += [f"{section}: {_counted(counts)}" for section, counts in self.counts().items()]
        total = collections.Counter(verdict.outcome for verdict in self.verdicts)
        what = f"{self.name} ({self.kind})" if self.kind else self.name
        return "\n".join([*lines, f"{what}: {_counted(total)} in {self.seconds:.1f} s"])

    def as_dict(self) -> dict[str, Any]:
        """For programs: section -> outcome -> ids; the texts of what did not pass beside it."""
        sections: dict[str, dict[str, list[str]]] = {}
        for verdict in self.verdicts:
            empty: dict[str, list[str]] = {outcome.value: [] for outcome in Outcome}
            sections.setdefault(verdict.row.section, empty)[verdict.outcome.value].append(verdict.row.id)
        texts = {v.row.id: v.text for v in self.verdicts if v.outcome is not Outcome.PASSED}
        return {"kind": self.kind, "sections": sections, "texts": texts, "seconds": round(self.seconds, 3)}


def _counted(counts: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts.get(outcome))


def junit(reports: Iterable[Report]) -> str:
    """JUnit XML: a suite for each device, a case for each row, skipped where there was nothing to judge."""
    root = ElementTree.Element("testsuites")
    for report in reports:
        failed, passed = len(report.failed), len(report.having(Outcome.PASSED))
        attributes = {
            "name": report.name,
            "tests": str(len(report.verdicts)),
            "failures": str(failed),
            "skipped": str(len(report.verdicts) - failed - passed),
            "time": f"{report.seconds:.3f}",
        }
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for verdict in report.verdicts:
            case = ElementTree.SubElement(suite, "testcase", classname=verdict.row.section, name=verdict.row.id)
            if verdict.outcome is Outcome.FAILED:
                ElementTree.SubElement(case, "failure", message=verdict.row.requirement).text = verdict.text
            elif verdict.outcome is not Outcome.PASSED:
                ElementTree.SubElement(case, "skipped", message=f"{verdict.outcome.value}: {verdict.text}")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def write_json(path: str | os.PathLike[str], reports: Iterable[Report]) -> None:
    """Write *reports* to *path*, by the devices' names; reports on other devices that stand there stay. Processes that
    write one file wait for one another.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read()
        devices = json.loads(before)["devices"] if before else {}
        devices |= {report.name: report.as_dict() for report in reports}
        file.truncate(0)
        json.dump({"devices": devices}, file, indent=1)
        file.write("\n")
