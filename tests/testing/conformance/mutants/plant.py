"""A fault of the product, planted: one piece of one source file reads differently for whoever imports it from now on.

The copy with the fault exists in the process that imports it and nowhere else, so nothing is copied, built or cleaned
up. This module imports nothing of the package: what was imported before can't be changed any more.
"""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

import attrs


class StaleError(Exception):
    """A fault that fits its file no more, or that nobody has imported: it proves nothing."""


@attrs.frozen(kw_only=True)
class Edit:
    """A piece of a module, *old*, which stands there once, and what stands there instead."""

    module: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The source with the fault. Raises StaleError unless *old* is there exactly once."""
        count = source.count(self.old)
        if count != 1:
            raise StaleError(f"{self.module}: stands there {count} times: {self.old!r}")
        return source.replace(self.old, self.new)


class _Loader(SourceFileLoader):
    """The loader of the changed module: always from the source, and the byte code of it is kept by nobody."""

    edits: Sequence[Edit] = ()

    def get_code(self, fullname: str) -> types.CodeType:
        """The code of the changed source."""
        path = self.get_filename(fullname)
        source = importlib.util.decode_source(self.get_data(path))
        for edit in self.edits:
            source = edit.apply(source)
        return compile(source, path, "exec", dont_inherit=True)


@attrs.define(eq=False)
class Planted(MetaPathFinder):
    """The finder that hands out changed modules. ``assert_used`` tells a fault that was never imported."""

    edits: Sequence[Edit]
    _used: set[str] = attrs.field(factory=set)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that an edit is for."""
        edits = [edit for edit in self.edits if edit.module == fullname]
        if not edits:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            raise StaleError(f"{fullname} has no source")
        loader = _Loader(fullname, spec.loader.path)
        loader.edits = edits
        spec.loader = loader
        self._used.add(fullname)
        return spec

    def assert_used(self) -> None:
        """Raises StaleError unless every edit was imported."""
        if unused := {edit.module for edit in self.edits} - self._used:
            raise StaleError(f"nobody imports {', '.join(sorted(unused))}")


def plant(*edits: Edit) -> Planted:
    """Let the modules of *edits* be changed ones in this process. Raises StaleError where it is too late for that."""
    if late := [edit.module for edit in edits if edit.module in sys.modules]:
        raise StaleError(f"imported already: {', '.join(late)}")
    finder = Planted(edits)
    sys.meta_path.insert(0, finder)
    return finder
