"""Markdown as the generated pages use it: tables, and directives of Sphinx in MyST's fences."""

from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; a ``|`` inside a cell is escaped."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(content: object) -> str:
    """*content* as one cell: on one line, without what would end it."""
    return " ".join(str(content).split()).replace("|", "\\|")


def rst(*lines: str) -> str:
    """Directives in reStructuredText, the language of autodoc and of docstrings."""
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def slug(title: str) -> str:
    """*title* as a file's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def toctree(pages: Iterable[str], depth: int = 1) -> str:
    """The list of *pages* below the one that it stands in."""
    return "\n".join(["```{toctree}", f":maxdepth: {depth}", "", *pages, "```", ""])
