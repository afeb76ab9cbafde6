"""Pages of the conformance suite: each row of its table, with the rule that judges it or the reason why none does."""

from collections.abc import Iterator

from acrn_dm.testing import conformance
from acrn_dm.testing.conformance.not_tested import why_not
from acrn_dm.testing.conformance.table import Row, rows
from tools.docs.markdown import table, toctree

INTRO = """# What the conformance suite judges

Rows are the requirements of virtio 1.4 for devices, by the ids of this project; `DESC` is what the specification states
as plain fact. Ids that begin with `dm.` or `pcifn.` are rows of our own: what a device can do wrong that no row names,
and what a PCI function owes its driver that is no virtio device.
"""


def conformance_pages() -> Iterator[tuple[str, str]]:
    """Name and text of each page; the first is the overview."""
    judged = {row for rule in conformance.RULES for row in rule.ids}
    areas: dict[str, list[Row]] = {}
    for row in rows().values():
        areas.setdefault(area(row), []).append(row)
    counts = [(f"[{name}]({name}.md)", len(those), sum(r.id in judged for r in those)) for name, those in areas.items()]
    overview = [INTRO, table(("area", "rows", "judged"), counts), toctree(areas)]
    yield "conformance/index.md", "\n".join(overview)
    for name, those in areas.items():
        lines = [(f"`{row.id}`", row.level, row.requirement, said(row, judged)) for row in those]
        head = ("row", "level", "requirement", "judged")
        yield f"conformance/{name}.md", f"# Conformance: {name}\n\n{table(head, lines)}"


def area(row: Row) -> str:
    """The page of *row*: its device's kind, or the part of the specification that its id begins with."""
    parts = row.id.split(".")
    return row.kind or (parts[1] if parts[0] == "d" else parts[0])


def said(row: Row, judged: set[str]) -> str:
    """Whether a rule judges *row*, or why none does."""
    if row.id in judged:
        return "yes"
    verdict = why_not(row)
    return f"{verdict.outcome.value}: {verdict.text}"
