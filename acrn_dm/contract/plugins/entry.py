"""Entry points: where an installed plugin comes from, however little its distribution says of itself."""

from typing import Protocol

from acrn_dm.contract.types import Provenance

UNKNOWN = "unknown distribution"


class Entry(Protocol):
    """An ``importlib.metadata.EntryPoint``, as far as it is used; its ``dist`` may be missing."""

    @property
    def name(self) -> str: ...
    def load(self) -> object: ...


def provenance_of(entry: Entry) -> Provenance:
    """The origin of *entry*. Raises nothing: metadata may be incomplete, or not there at all."""
    dist = getattr(entry, "dist", None)
    try:
        name, version = dist.name, dist.version  # type: ignore[union-attr]  # None raises, too
    except Exception:
        name, version = None, None
    return Provenance(plugin=entry.name, distribution=str(name or UNKNOWN), version=str(version or ""))
