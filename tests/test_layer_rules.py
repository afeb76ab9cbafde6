"""Each rule of ``layer_rules`` sees its fault: planted in a small package with a table of its own."""

from pathlib import Path

import pytest

from tests import layer_rules as rules
from tests.source_tree import Tree

DOCUMENT = """
## Layers

| layer | units | job |
|---|---|---|
| top | `__init__.py` `faces/` | what is seen |
| parts | `parts/*` `boot/` | stand apart |
| shared | `parts/{shared,common}.py` | below the parts |
| bottom | `base/` `_ring.pyx` | below all |

| module | imports by name | reason |
|---|---|---|
| `base/host.py` | plugins | found by name |

## Next
"""
LAYERS = rules.Layers(DOCUMENT)
SOUND = {
    "__init__.py": "",
    "faces/cli.py": "from pkg.parts import disk\n",
    "parts/disk.py": "from pkg.parts.shared import A\n",
    "parts/net/device.py": "from pkg.base.bus import Bus\n",
    "parts/shared.py": "from pkg.parts.common import A\n",
    "parts/common.py": "A = 1\n",
    "boot/loader.py": "import os\n",
    "base/bus.py": "import attrs\n",
    "base/host.py": "import importlib\nimportlib.import_module('pkg.parts.disk')\n",
    "_ring.pyx": "from libc.stdint cimport uint8_t\n",
}


def planted(tmp_path: Path, **faults: str) -> Tree:
    """The sound package with the files *faults* added or replaced."""
    for name, text in {**SOUND, **faults}.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree.read(tmp_path / "pkg")


def test_the_sound_package_breaks_no_rule(tmp_path: Path) -> None:
    tree = planted(tmp_path)
    assert rules.unplaced(tree, LAYERS) == rules.stale(tree, LAYERS) == rules.upward(tree, LAYERS) == []
    assert rules.cycles(tree) == rules.foreign(tree) == rules.by_name(tree, ["base/host.py"]) == []
    assert rules.long_functions(tree) == rules.long_files(tree) == rules.full_folders(tree) == []


@pytest.mark.parametrize("name", ["loose.py", "loose.pyx", "odd/__init__.py"])
def test_module_in_no_layer_is_seen(tmp_path: Path, name: str) -> None:
    assert rules.unplaced(planted(tmp_path, **{name: ""}), LAYERS) == [name.rpartition(".")[0]]


def test_entry_without_a_module_is_seen(tmp_path: Path) -> None:
    layers = rules.Layers(DOCUMENT.replace("`boot/`", "`boot/` `gone/`"))
    assert rules.stale(planted(tmp_path), layers) == ["gone"]


def test_entry_that_stands_twice_is_seen(tmp_path: Path) -> None:
    layers = rules.Layers(DOCUMENT.replace("`base/`", "`base/` `boot/`"))
    assert rules.stale(planted(tmp_path), layers) == ["boot"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base/up.py", "from pkg.boot import loader\n"),
        ("base/up.py", "from pkg.boot.loader import load\n"),
        ("base/up.py", "import pkg.boot.loader\n"),
        ("base/up.py", "def f():\n    from pkg.boot.loader import load\n"),
        ("base/up.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.boot.loader\n"),
        ("base/up.pyi", "from pkg.boot.loader import load\n"),
        ("base/up.pyx", "from pkg.boot.loader cimport load\n"),
        ("base/up.pyx", "from pkg.boot cimport (\n    a,  # )\n    loader,\n)\n"),
        ("base/up.pyx", "cdef f():\n    cimport pkg.base.bus, pkg.boot.loader as b\n"),
        ("base/up.pxd", "cimport pkg.boot.loader\n"),
        ("_ring.pyx", "'''from x cimport\n'''\nfrom pkg.boot.loader import load\n"),
    ],
)
def test_import_of_a_higher_row_is_seen_wherever_it_stands(tmp_path: Path, name: str, text: str) -> None:
    tree = planted(tmp_path, **{name: text, "boot/__init__.py": ""})
    assert any("boot/loader (parts)" in found for found in rules.upward(tree, LAYERS))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("boot/loader.py", "from pkg.parts.disk import D\n"),
        ("parts/disk.py", "from pkg.boot.loader import L\n"),
        ("parts/disk.py", "from pkg.parts.net.device import N\n"),
        ("parts/net/device.py", "from pkg.parts import disk\n"),
        ("base/bus.py", "from pkg._ring import R\n"),
    ],
)
def test_import_of_another_unit_of_the_row_is_seen(tmp_path: Path, name: str, text: str) -> None:
    assert len(rules.upward(planted(tmp_path, **{name: text}), LAYERS)) == 1


def test_modules_in_a_circle_are_seen(tmp_path: Path) -> None:
    tree = planted(tmp_path, **{
        "base/a.py": "from pkg.base import b\n",
        "base/b.py": "def f():\n    from pkg.base.c import C\n",
        "base/c.pyx": "cimport pkg.base.a\n",
    })  # fmt: skip
    assert rules.cycles(tree) == [["base/a", "base/b", "base/c"]]


@pytest.mark.parametrize("text", ["from tests import x\n", "import lab.vm\n", "import numpy\n", "from . import bus\n"])
def test_import_from_outside_is_seen(tmp_path: Path, text: str) -> None:
    assert len(rules.foreign(planted(tmp_path, **{"base/out.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module(f'pkg.{x}')\n",
        "from importlib import import_module as im\nim('x')\n",
        "__import__('x')\n",
        "HOMES = {'disk': 'pkg.parts.disk'}\n",
    ],
)
def test_import_by_name_is_seen(tmp_path: Path, text: str) -> None:
    assert rules.by_name(planted(tmp_path, **{"faces/cli.py": text}), ["base/host.py"]) == ["faces/cli.py"]


def test_listed_module_that_imports_nothing_by_name_is_seen(tmp_path: Path) -> None:
    assert rules.by_name(planted(tmp_path), ["base/host.py", "base/bus.py"]) == ["base/bus.py"]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("base/long.py", "def long():\n"),
        ("base/long.py", "class C:\n  async def long(self):\n"),
        ("base/long.pyx", "def long():\n"),
        ("base/long.pyx", "cdef inline uint64_t* long(\n    int a,\n) noexcept nogil:\n"),
        ("base/long.pyx", "cdef class C:\n  cpdef object long(self, x=f(1)):\n"),
    ],
)
@pytest.mark.parametrize("lines", [rules.FUNCTION_LINES, rules.FUNCTION_LINES + 1])
def test_function_over_the_limit_is_seen(tmp_path: Path, name: str, head: str, lines: int) -> None:
    in_class = head.startswith(("class", "cdef class"))
    body = lines - head.count("\n") + in_class
    text = head + "    x = 1\n" * (body - 2) + "\n    return\n" + "\n\nX = 1\n"
    expected = [f"{name} long: {lines}"] if lines > rules.FUNCTION_LINES else []
    assert rules.long_functions(planted(tmp_path, **{name: text})) == expected


@pytest.mark.parametrize("suffix", ["py", "pyi", "pyx", "pxd"])
def test_file_over_the_limit_is_seen(tmp_path: Path, suffix: str) -> None:
    tree = planted(tmp_path, **{f"base/fits.{suffix}": "\n" * 450, f"base/long.{suffix}": "\n" * 451})
    assert rules.long_files(tree) == [f"base/long.{suffix}: 451"]


def test_full_folder_is_seen_and_built_files_do_not_count(tmp_path: Path) -> None:
    names = [f"base/{n}.py" for n in range(12)]
    built = {"base/bus.c": "", "base/bus.so": ""}
    assert rules.full_folders(planted(tmp_path, **dict.fromkeys(names, ""), **built)) == []
    assert rules.full_folders(planted(tmp_path, **{"base/shared.h": ""})) == ["base/: 15"]


def test_loose_modules_are_seen(tmp_path: Path) -> None:
    loose = dict.fromkeys(["a.py", "b.py", "c.py"], "")
    assert rules.full_folders(planted(tmp_path, **loose)) == []
    assert rules.full_folders(planted(tmp_path, **{"d.py": ""})) == ["loose: __init__.py, a.py, b.py, c.py, d.py"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from acrn_dm import Public\nfrom acrn_dm.testing import Machine\nimport attrs\n", []),
        ("from acrn_dm import Private\n", ["acrn_dm.Private"]),
        ("def f():\n    from acrn_dm.pci.bus import PciBus\n", ["acrn_dm.pci.bus.PciBus"]),
        ("import acrn_dm.pci.bus\n", ["acrn_dm.pci.bus"]),
        ("from acrn_dm import *\n", ["acrn_dm.*"]),
    ],
)
def test_private_name_in_a_plugin_is_seen(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(text)
    assert rules.private_names(path, {"acrn_dm": ["Public"], "acrn_dm.testing": ["Machine"]}) == expected
