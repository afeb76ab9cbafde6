"""What the package defines is read by more than tests: by itself, by a tool, or by who uses public names."""

import functools
import importlib
from pathlib import Path

import pytest

import acrn_dm
from acrn_dm import testing
from tests.source_tree import Source, Tree
from tests.unreached import Definition, unreached

ROOT = Path(__file__).resolve().parents[1]
TREE = Tree.read(ROOT / "acrn_dm")
TOOLS = [source for folder in ("benchmarks", "tools") for source in Tree.read(ROOT / folder).sources]
PUBLIC = [getattr(module, name) for module in (acrn_dm, testing) for name in module.__all__]

# Modules whose readers are elsewhere.
FOR_OTHERS = {
    "testing": "the kit for authors of plugins",
    "_fastring": "the ring as authors of devices have it",
    "hypervisors/sim": "``SimMachine.vm``: what a test asks the simulation",
}
# Names that nothing here reads, and why they stand.
STANDS = {
    "devices.virtio_blk.config: BlkConfig.no_bst_block": "an option of the original's that changes nothing",
    "machine.power: Power.reboots": "observers tell by it a boot from a reboot",
    "virtio.pci.transport: VirtioPci.queue_counts": "observers read by it what a queue did, as ``SimMachine`` does",
    "pci.bus: PciBus.config_accesses": "observers count by it what a guest's search for devices costs",
}


def is_for_others(found: Definition) -> bool:
    return any(found.module == place or found.module.startswith(f"{place}/") for place in FOR_OTHERS)


def is_public(found: Definition) -> bool:
    """A public name, a member of a public class or of its bases, or, by name, of a public Protocol."""
    names = set(found.names)
    if any(getattr(public, "_is_protocol", False) and names & set(dir(public)) for public in PUBLIC):
        return True
    bases = [base for public in PUBLIC if isinstance(public, type) for base in public.__mro__]
    own = ("acrn_dm." + found.module.replace("/", ".").removesuffix(".__init__"), found.owner)
    return own in [(base.__module__, base.__name__) for base in bases] or bool(names & set(acrn_dm.__all__))


def overrides(found: Definition) -> bool:
    """Whether it is called from outside: a base of its class that is not of this package has that name."""
    if not found.owner:
        return False
    owner = getattr(importlib.import_module(f"acrn_dm.{found.module.replace('/', '.')}"), found.owner)
    others = [base for base in owner.__mro__ if not base.__module__.startswith("acrn_dm.")]
    return any(name in vars(base) for base in others for name in found.names)


@functools.cache
def dead() -> set[str]:
    found = [d for d in unreached(TREE, TOOLS) if not is_for_others(d)]
    return {str(d) for d in found if not is_public(d) and not overrides(d)}


def test_every_public_name_is_read_by_something_other_than_a_test() -> None:
    assert sorted(dead() - STANDS.keys()) == [], "promote it to a use, or delete it with its tests"


def test_what_is_read_by_now_leaves_the_list() -> None:
    assert sorted(STANDS.keys() - dead()) == []


def planted(tmp_path: Path, name: str, text: str) -> list[str]:
    (tmp_path / name).write_text(text)
    return [str(d).partition(": ")[2] for d in unreached(Tree.read(tmp_path))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def dead(): pass", ["dead"]),
        ("def dead(): dead()", ["dead"]),
        ("def used(): pass\nused()", []),
        ("DEAD = 1", ["DEAD"]),
        ("DEAD, MORE = range(2)", ["DEAD, MORE"]),
        ("USED, OTHER = range(2)\nprint(USED)", []),
        ("class _C:\n    @property\n    def dead(self): ...\n_C()", ["_C.dead"]),
        ("class _C:\n    def __init__(self): self.dead = 0\n    def _go(self): self.dead += 1", ["_C.dead"]),
        ("class _C:\n    field: int = 0\n_C(field=1)", ["_C.field"]),
        ("class _C:\n    field: int = 0\nprint(_C().field)", []),
        ("class _C:\n    def used(self): ...\ngetattr(_C(), 'used')", []),
        ("@hookimpl\ndef acrn_dm_types(): ...", []),
        ("class _C(Enum):\n    BY_VALUE = 1", []),
    ],
)
def test_python_name_that_is_only_defined_is_seen(tmp_path: Path, text: str, found: list[str]) -> None:
    assert planted(tmp_path, "planted.py", text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def dead(int a):\n    pass", ["dead"]),
        ('cdef class _C:\n    def dead(self):\n        """dead"""  # dead', ["_C.dead"]),
        ("cpdef int used():\n    return 0\ncdef int _f():\n    return used()", []),
        ("DEAD = 1", ["DEAD"]),
        ("cdef int _private():\n    return 0", []),
    ],
)
def test_cython_name_that_is_only_defined_is_seen(tmp_path: Path, text: str, found: list[str]) -> None:
    assert planted(tmp_path, "planted.pyx", text) == found


def test_tool_that_reads_a_name_reaches_it(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("USED = 1")
    tool = Source(Path("tool.py"), "tool", "from planted import USED")
    assert unreached(Tree.read(tmp_path), [tool]) == []
