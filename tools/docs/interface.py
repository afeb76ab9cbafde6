"""Pages of the public names: one for each group of authors, made by autodoc from signatures, types and docstrings."""

import enum
import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType

import acrn_dm
import acrn_dm.testing
import acrn_dm_pytest
from tools.docs.markdown import rst, slug, toctree

PUBLIC = re.compile(r"from \S+ import (\w+) as \1")
VALUES = {  # what a name stands for that is neither class nor function
    "READ": "Of ``IoLoop.add``: there is something to read.",
    "WRITE": "Of ``IoLoop.add``: there is room to write.",
    "CHECKS": "The rules of the conformance suite as callables, each called by its rows; see *Conformance*.",
    "DRIVER_CLAUSES": "What the strict check asks of drivers, each ``Clause`` by its id; see *Driver clauses*.",
}
MEMBERS = ("   :members:", "   :undoc-members:", "   :inherited-members: object")


def public_names() -> dict[str, list[str]]:
    """The public names by group, as they stand in ``acrn_dm/__init__.py``: a comment there is a group's title."""
    groups: dict[str, list[str]] = {}
    title = ""
    for line in map(str.strip, inspect.getsource(acrn_dm).splitlines()):
        if line.startswith("# "):
            title = line.removeprefix("# ")
        elif (found := PUBLIC.fullmatch(line)) and title:
            groups.setdefault(title, []).append(found[1])
    return groups


def interface_pages() -> Iterator[tuple[str, str]]:
    """Name and text of each page; the first is the overview."""
    groups = public_names()
    pages = {slug(title.split(":")[0]): (title, names) for title, names in groups.items()}
    overview = ["# What plugins are written against", inspect.getdoc(acrn_dm) or "", ""]
    yield "interface/index.md", "\n".join([*overview, toctree(pages, 2)])
    for page, (title, names) in pages.items():
        yield f"interface/{page}.md", names_page(title, acrn_dm, names)


def testing_page() -> str:
    """The kit for tests of plugins."""
    return names_page("acrn_dm.testing", acrn_dm.testing, acrn_dm.testing.__all__)


def names_page(title: str, module: ModuleType, names: list[str]) -> str:
    """A page on *names* of *module*, each under a heading that can be linked to."""
    parts = [f"# {title}\n"]
    if module is not acrn_dm:
        parts.append(f"{inspect.getdoc(module)}\n")
    for name in names:
        parts.append(f"## {name}\n\n{rst(*directive(module, name))}")
    return "\n".join(parts)


def directive(module: ModuleType, name: str) -> Iterator[str]:
    """The lines that let autodoc describe *name*."""
    value = getattr(module, name)
    what = f"{module.__name__}.{name}"
    if module is not acrn_dm and inspect.isclass(value) and getattr(acrn_dm, name, None) is value:
        yield from (f".. py:class:: {what}", "", f"   The same as :py:class:`acrn_dm.{name}`.")
    elif inspect.isclass(value):
        yield f".. autoclass:: {what}"
        yield from class_options(value)
        if "ee the module" in (inspect.getdoc(value) or ""):  # "See the module": its docstring has the whole
            yield from ("", *module_documentation(value))
    elif callable(value) and not isinstance(value, Mapping) and hasattr(value, "__name__"):
        yield f".. autofunction:: {what}"
    elif isinstance(value, int):
        yield from (f".. py:data:: {what}", f"   :value: {value}", "", f"   {VALUES[name]}")
    elif name in VALUES:
        yield from (f".. py:data:: {what}", f"   :type: {type(value).__name__}", "", f"   {VALUES[name]}")
    else:
        yield from (f".. autodata:: {what}", "   :no-value:")


def class_options(cls: type) -> Iterator[str]:
    """What of *cls* is shown: of exceptions only what they add, of enumerations the names in their order."""
    if issubclass(cls, BaseException):
        yield from ("   :members:", "   :show-inheritance:")
        return
    yield from MEMBERS if not issubclass(cls, enum.Enum) else MEMBERS[:2]
    yield "   :member-order: bysource"


def module_documentation(cls: type) -> Iterator[str]:
    """The docstring of the module of *cls*, in the class's description."""
    module = inspect.getmodule(cls)
    for line in (inspect.getdoc(module) or "").splitlines():
        yield f"   {line}".rstrip()


def fixtures_page() -> str:
    """Fixtures of the pytest plugin."""
    parts = ["# Fixtures for pytest\n", rst(*(inspect.getdoc(acrn_dm_pytest) or "").splitlines())]
    for name in fixtures():
        text = inspect.cleandoc(getattr(acrn_dm_pytest, name).__doc__ or "")
        parts.append(f"## {name}\n\n{rst(*text.splitlines())}")
    return "\n".join(parts)


def fixtures() -> list[str]:
    """The names of all fixtures that the plugin has."""
    return [name for name in vars(acrn_dm_pytest) if name.startswith("dm_")]
