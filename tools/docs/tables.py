"""Pages made of tables that drive the program: devices and options, hooks, registers and features, the command line."""

import contextlib
import inspect
import io
from typing import Any

from acrn_dm.cli.app import main as acrn_dm_main
from acrn_dm.contract import hookspecs
from acrn_dm.contract.options import describe
from acrn_dm.contract.plugins import PluginManager
from acrn_dm.testing import DRIVER_CLAUSES
from acrn_dm.virtio import features
from acrn_dm.virtio.pci import legacy, modern
from tools.docs.markdown import rst, table


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
    parts = ["# Hooks\n", rst(*(inspect.getdoc(hookspecs) or "").splitlines())]
    for name in vars(hookspecs):
        if name.startswith("acrn_dm_"):
            parts.append(f"## {name}\n\n{rst(f'.. autofunction:: acrn_dm.contract.hookspecs.{name}')}")
    return "\n".join(parts)


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


def clauses_page() -> str:
    """What ``strict=on`` asks of drivers."""
    rows = [(f"`{c.id}`", c.section, c.level, c.text) for c in DRIVER_CLAUSES.values()]
    head = "# Driver clauses\n\nWhat `strict=on` holds a driver to; sections are those of virtio 1.4.\n"
    return f"{head}\n{table(('clause', 'section', 'level', 'the driver'), rows)}"
