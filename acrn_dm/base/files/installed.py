"""Installed distributions: version and entry points, read from the folders beside the packages.

``importlib.metadata`` answers the same and takes a fifth of a start for it: it imports email, zipfile and some thirty
modules more. It is asked where something is on the path that is no plain folder. Formats: the packaging specifications
"Recording installed projects", "Core metadata" and "Entry points".
"""

import functools
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

RECORDS = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}  # of wheels; of builds in place
_VALUE = r"(?P<module>[\w.]+)\s*(:\s*(?P<attr>[\w.]+)\s*)?(\[.*\]\s*)?\Z"


class Distribution:
    """One folder with the record of a distribution; nothing is read before it is asked for."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        stem, self._suffix = os.path.splitext(os.path.basename(folder))
        self.key = normalized(stem.partition("-")[0])

    @property
    def name(self) -> str | None:
        """Its name as its author writes it."""
        return self._header.get("name")

    @property
    def version(self) -> str | None:
        """Its version."""
        return self._header.get("version")

    def text(self, file: str) -> str:
        """One of its files; empty where there is none."""
        try:
            with open(os.path.join(self.folder, file), encoding="utf-8") as opened:
                return opened.read()
        except (OSError, UnicodeDecodeError):
            return ""

    @functools.cached_property  # each entry point asks for the name, some for each other one
    def _header(self) -> dict[str, str]:
        """The fields of its record by their names in small letters; of more than one the first."""
        fields: dict[str, str] = {}
        for line in self.text(RECORDS[self._suffix.lower()]).splitlines():
            name, colon, value = line.partition(":")
            if not colon:  # the end of the header, or the description
                break
            fields.setdefault(name.strip().lower(), value.strip())
        return fields


class EntryPoint:
    """The thing that a distribution offers under a name, in one group; as ``importlib.metadata.EntryPoint``."""

    def __init__(self, name: str, value: str, dist: object) -> None:
        self.name, self.value, self.dist = name, value, dist

    def load(self) -> object:
        """Import what it names. Raises whatever that raises, ValueError for a value that names nothing."""
        match = re.match(_VALUE, self.value)
        if match is None:
            raise ValueError(f"the entry point {self.name} = {self.value!r} is no MODULE or MODULE:NAME")
        loaded: object = importlib.import_module(match["module"])
        for part in filter(None, (match["attr"] or "").split(".")):
            loaded = getattr(loaded, part)
        return loaded


def normalized(name: str) -> str:
    """The *name* of a distribution, as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entry_points(group: str, path: Iterable[str] | None = None) -> list[EntryPoint]:
    """The entry points of *group*; of two distributions of one name the first on the *path* counts."""
    return entry_points_of([group], path)[group]


def entry_points_of(groups: Sequence[str], path: Iterable[str] | None = None) -> dict[str, list[EntryPoint]]:
    """The entry points of each of *groups*: what is installed is read once for all of them."""
    folders = list(sys.path if path is None else path)
    found: dict[str, list[EntryPoint]] = {group: [] for group in groups}
    plain = all(map(_plain, folders)) and not any(map(_finds_more, sys.meta_path))
    for group, entry in _read(folders) if plain else _by_the_library(groups, folders):
        if group in found:
            found[group].append(entry)
    return found


def version_of(name: str) -> str | None:
    """The version of the distribution *name*; None if it is not installed."""
    wanted = normalized(name)
    return next((dist.version for dist in distributions(sys.path) if dist.key == wanted), None)


def distributions(path: Iterable[str]) -> Iterator[Distribution]:
    """The distributions in the folders of *path*, in its order."""
    for folder in path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.lower().endswith(tuple(RECORDS)):
                yield Distribution(os.path.join(folder, name))


def _read(folders: list[str]) -> Iterator[tuple[str, EntryPoint]]:
    """All entry points with their groups."""
    first: dict[str, Distribution] = {}
    for dist in distributions(folders):
        first.setdefault(dist.key, dist)
    for dist in first.values():
        group = ""
        for line in map(str.strip, dist.text("entry_points.txt").splitlines()):
            if line.startswith("["):
                group = line.removeprefix("[").removesuffix("]")
            elif line and not line.startswith("#"):
                name, _, value = line.partition("=")
                yield group, EntryPoint(name.strip(), value.strip(), dist)


def _plain(folder: str) -> bool:
    """Whether it is a folder or nothing at all; an archive and an egg have their records elsewhere."""
    return not folder.lower().endswith(".egg") and (os.path.isdir(folder or ".") or not os.path.exists(folder))


def _finds_more(finder: object) -> bool:
    """Whether *finder* of ``sys.meta_path`` knows distributions that are in no folder of the path."""
    return getattr(finder, "__module__", "") != "_frozen_importlib_external" and hasattr(finder, "find_distributions")


def _by_the_library(groups: Sequence[str], folders: list[str]) -> Iterator[tuple[str, EntryPoint]]:
    from importlib import metadata  # noqa: PLC0415  # only here

    first = {dist.name: dist for dist in reversed([*metadata.distributions(path=folders)])}
    for dist in first.values():
        for group in groups:
            for entry in dist.entry_points.select(group=group):
                yield group, EntryPoint(entry.name, entry.value, dist)
