"""Write the reference pages from the program itself: public names, devices, hooks, registers, command line.

``python -m tools.docs DIR``. What can be generated is not written by hand, so it can't become false; the prose pages in
``docs/`` are copied beside them.
"""

import contextlib
import enum
import inspect
import io
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import acrn_dm
from acrn_dm.cli.app import main as acrn_dm_main
from acrn_dm.contract import hookspecs
from acrn_dm.contract.options import describe
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.virtio import features
from acrn_dm.virtio.pci import legacy, modern

PUBLIC = re.compile(r"from \S+ import (\w+) as \1")
ROOT = Path(__file__).resolve().parents[1]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; a ``|`` inside a cell is escaped."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def devices_page(manager: PluginManager) -> str:
    """Every kind of device with its options."""
    parts = ["# Devices\n"]
    for name, kind in sorted(manager.device_types().items()):
        if name != kind.name:
            continue
        parts.append(f"## {name}\n\n{kind.summary}\n\nProvided by {manager.provider(kind)}.\n")
        if kind.aliases:
            parts.append(f"Also called {', '.join(kind.aliases)}.\n")
        rows = [(f"`{o.name}`", o.metavar, o.default, o.text) for o in describe(kind.config)]
        parts.append(table(("option", "value", "default", "meaning"), rows) if rows else "No options.\n")
    return "\n".join(parts)


def hooks_page() -> str:
    """Every hook with its signature and documentation."""
    parts = ["# Hooks\n", inspect.getdoc(hookspecs) or "", ""]
    for name, function in vars(hookspecs).items():
        if name.startswith("acrn_dm_"):
            parts.append(
                f"## {name}\n\n```python\n{name}{inspect.signature(function)}\n```\n\n{inspect.getdoc(function)}\n"
            )
    return "\n".join(parts)


def public_names() -> dict[str, list[str]]:
    """The public names by group, as they stand in ``acrn_dm/__init__.py``: a comment there is a group's title."""
    groups: dict[str, list[str]] = {}
    title = ""
    for line in inspect.getsource(acrn_dm).splitlines():
        if line.startswith("# "):
            title = line.removeprefix("# ")
        elif (found := PUBLIC.fullmatch(line)) and title:
            groups.setdefault(title, []).append(found[1])
    return groups


def interface_page() -> str:
    """Every public name, by whose work needs it."""
    parts = ["# What plugins are written against\n", inspect.getdoc(acrn_dm) or "", ""]
    for title, names in public_names().items():
        parts.append(f"## {title}\n")
        parts += [describe_name(name, getattr(acrn_dm, name)) for name in names]
    return "\n".join(parts)


def describe_name(name: str, value: object) -> str:
    """What there is to say of one name: its signature, its documentation, for a class its members."""
    if inspect.isclass(value) or inspect.isfunction(value):
        text = f"### {name}\n\n```python\n{name}{signature(value)}\n```\n\n{documentation(value)}\n"
    else:
        text = f"### {name}\n\n`{name} = {value if isinstance(value, int) else type(value).__name__}`\n"
    rows = members(value) if inspect.isclass(value) else []
    return text + ("\n" + table(("member", "meaning"), rows) if rows else "")


def members(cls: type) -> list[tuple[str, str]]:
    """The public methods and properties of *cls* and of its bases here, with what they say; an enumeration's names."""
    if issubclass(cls, enum.Enum):
        return [(f"`{member.name}`", str(member.value)) for member in cls]
    attributes = inspect.get_annotations(cls).items() if is_protocol(cls) else ()
    found = {name: (f"`{name}: {inspect.formatannotation(hint)}`", "") for name, hint in attributes}
    for base in cls.__mro__:
        for name, member in vars(base).items() if base.__module__.startswith("acrn_dm") else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isroutine(function) and not name.startswith("_"):
                shown = name if isinstance(member, property) else f"{name}{signature(function)}"
                found.setdefault(name, (f"`{shown}`", " ".join(documentation(function).split())))
    return sorted(found.values())


def documentation(thing: Any) -> str:
    """The docstring of *thing*, and its module's where it says so."""
    text = inspect.getdoc(thing) or ""
    return f"{text}\n\n{sys.modules[thing.__module__].__doc__}" if "ee the module" in text else text


def signature(function: Any) -> str:
    """The arguments of *function*, types by their own names; nothing for classes that nobody makes by a call."""
    if inspect.isclass(function) and (is_protocol(function) or issubclass(function, enum.Enum)):
        return ""
    try:
        return re.sub(r"\b(?:\w+\.)+(?=[A-Za-z])", "", str(inspect.signature(function)))
    except ValueError:  # of a C type
        return ""


def is_protocol(cls: type) -> bool:
    """Whether *cls* is there to be kept, not to be made."""
    return bool(getattr(cls, "_is_protocol", False))


def registers_page() -> str:
    """The virtio registers and features, from the tables that drive them."""
    parts = ["# virtio registers and features\n"]
    for title, registers in (("Modern: common configuration", modern.COMMON), ("Legacy: BAR 0", legacy.HEADER)):
        rows: list[tuple[Any, ...]] = [
            (f"{r.offset:#04x}", r.width, r.access, f"`{r.name}`") for r in registers.registers
        ]
        parts.append(f"## {title}\n\n{table(('offset', 'bytes', 'access', 'register'), rows)}")
    for device_id, known in ((None, features.RING), *features.DEVICE_TABLES.items()):
        title = "ring and transport" if device_id is None else f"device {device_id}"
        rows = [(f.bit, f"`{f.name}`", requirement(f.requires), f.section) for f in known]
        parts.append(f"## Features: {title}\n\n{table(('bit', 'feature', 'requires bits', 'specification'), rows)}")
    return "\n".join(parts)


def requirement(conditions: features.Requirement) -> str:
    """A conjunction of alternatives in words."""
    return " and ".join(" or ".join(map(str, bits)) for bits in conditions) or "none"


def command_line_page() -> str:
    """What ``acrn-dm --help`` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        acrn_dm_main(["--help"])
    return f"# Command line\n\n```text\n{text.getvalue().rstrip()}\n```\n"


def main(target: Path) -> int:
    """Write all pages below *target*."""
    target.mkdir(parents=True, exist_ok=True)
    manager = make_plugin_manager()
    pages = {
        "devices.md": devices_page(manager),
        "interface.md": interface_page(),
        "hooks.md": hooks_page(),
        "registers.md": registers_page(),
        "command-line.md": command_line_page(),
    }
    for name, text in pages.items():
        (target / name).write_text(text)
    for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))):
        shutil.copy(page, target / page.name)
    print(f"{len(list(target.glob('*.md')))} pages in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"))
