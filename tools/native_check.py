"""Data paths in C, checked in what Cython has made of them: no Python on the way of a byte.

``python -m tools.native_check`` reads each function that says ``noexcept nogil`` (rings, planes, the event loop, disk
engines, cards, consoles, the relay), finds its C body, and names every call in there that is Python's: of its API, of
Cython's helpers for objects, or of a function of ours that is no such function itself, which would take the GIL.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "acrn_dm"

HEAD = re.compile(
    r"^(?P<indent> *)cdef (?P<what>[^=\n#]*?)\b(?P<name>\w+)\((?P<rest>(?:(?!\n *cdef)[^:])*?)\) noexcept nogil", re.M
)
CLASS = re.compile(r"^cdef class (\w+)", re.M)
BODY = re.compile(r"^(?:static|CYTHON_INLINE|\w)[^\n;=]*?\b(__pyx_f_\w+)\([^\n]*\) *\{\n(.*?)^\}", re.M | re.S)
COMMENT = re.compile(r"/\*.*?\*/", re.S)
CALL = re.compile(r"\b(_?Py[A-Z_]\w*|__Pyx_\w+|__pyx_f_\w+)\s*\(")
HARMLESS = re.compile(r"__Pyx_(RefNanny\w*|c99_\w+|INCREF_none|div_\w+|mod_\w+|cdiv_\w+)\Z")  # nothing of Python's


@attrs.frozen
class Declared:
    """A function without the GIL: its name in C, and where it stands."""

    c_name: str
    source: Path


def declared(source: Path, root: Path = ROOT) -> Iterator[Declared]:
    """The functions without the GIL that a .pyx or .pxd below *root* has or declares."""
    text = source.read_text()
    parts = source.relative_to(root).with_suffix("").parts
    module = "_".join(f"{len(part)}{part}" for part in parts)
    classes = [(found.start(), found[1]) for found in CLASS.finditer(text)]
    for found in HEAD.finditer(text):
        owner = ""
        if found["indent"]:
            name = [name for start, name in classes if start < found.start()][-1]
            owner = f"{len(name)}{name}_"
        yield Declared(f"__pyx_f_{module}_{owner}{found['name']}", source)


def hot_modules() -> list[Path]:
    """The modules with functions without the GIL: such a function says that it may be called from where data moves."""
    return [path for path in sorted(PACKAGE.rglob("*.pyx")) if any(declared(path))]


def bodies(generated: Path) -> dict[str, str]:
    """The C functions in a generated file, without comments."""
    return {name: COMMENT.sub("", body) for name, body in BODY.findall(generated.read_text())}


def pythons(body: str, free: set[str]) -> set[str]:
    """What *body* calls that is Python's; *free* are functions without the GIL."""
    called = set(CALL.findall(body))
    return {name for name in called if name not in free and not HARMLESS.match(name)}


def faults(modules: list[Path]) -> tuple[int, list[str]]:
    """How many functions were looked at in *modules*, and a line for each fault. A module that was not built is one."""
    sources = [*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]
    free = {found.c_name for source in sources for found in declared(source)}
    count, lines = 0, []
    for module in modules:
        generated = module.with_suffix(".c")
        if not generated.exists():
            lines.append(f"{module.relative_to(ROOT)}: there is no generated C; build it (make ext)")
            continue
        found = bodies(generated)
        own = {it.c_name for it in declared(module)}
        lines += [f"{module.relative_to(ROOT)}: {name} has no body in the generated C" for name in own - found.keys()]
        for name in sorted(free & found.keys()):
            count += 1
            lines += [f"{module.relative_to(ROOT)}: {name} calls {it}" for it in sorted(pythons(found[name], free))]
    return count, lines


def main() -> int:
    """Print the faults; how many decides the exit status."""
    modules = hot_modules()
    count, lines = faults(modules)
    print("\n".join([*lines, f"{count} functions in {len(modules)} modules, {len(lines)} faults"]))
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
